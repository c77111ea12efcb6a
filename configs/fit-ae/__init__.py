"""Presets of fit-ae."""
