"""The nouns: built-in plugins, one folder per kind. They come in by the same door as everyone else's."""
