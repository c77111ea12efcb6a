"""Autoencoders: between images and latents. One class per file, the file named as the plugin."""
