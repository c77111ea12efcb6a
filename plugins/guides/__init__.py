"""Guides: what a sample should be like, as a loss on its picture. One class per file, the file named as the plugin."""
