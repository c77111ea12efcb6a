"""Trackers: where a run reports, besides metrics.jsonl. One class per file, the file named as the plugin."""
