"""Filling of holes in a photograph, from its own patches and optionally guided by the decoder's image."""
