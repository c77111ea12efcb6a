"""Extractors: pictures to the features that sets of pictures are compared by. One class per file, the file named as the plugin."""
