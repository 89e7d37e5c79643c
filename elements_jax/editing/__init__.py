"""Edits of a canvas, edit scripts, and the files that carry them."""
