"""Holes of a photograph, filled from its own patches with the decoder's picture as a guide."""
