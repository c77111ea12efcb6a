"""Datasets: pictures as they are stored. One class per file, the file named as the plugin."""
