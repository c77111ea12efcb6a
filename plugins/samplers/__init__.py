"""Samplers: from noise to a clean latent. One class per file, the file named as the plugin."""
