"""How good a thing is, and what to do about it."""
