"""Denoisers: networks that predict what was under the noise. One class per file, the file named as the plugin."""
