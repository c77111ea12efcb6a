"""The sentences: presets that join verbs and nouns, one folder per verb, and `data/` for sets of pictures."""
