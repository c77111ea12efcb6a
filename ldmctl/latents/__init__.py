"""The cache of latents: planned, written, checked, read and whitened."""
