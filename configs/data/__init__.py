"""Presets of data."""
