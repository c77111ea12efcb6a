"""Presets of fit-diffusion."""
