"""Conditioners: labels, text or maps to what a denoiser listens to. One class per file, the file named as the plugin."""
