"""Noise, the networks that take it away, and the way from one to the other."""
