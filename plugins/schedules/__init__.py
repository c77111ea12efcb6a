"""Schedules: how signal fades into noise. One class per file, the file named as the plugin."""
