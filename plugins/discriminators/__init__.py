"""Discriminators: how real each patch looks. One class per file, the file named as the plugin."""
