"""Perceptual distances: losses and measures. One class per file, the file named as the plugin."""
