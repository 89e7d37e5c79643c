"""Edits of a canvas, edit scripts, and the files that contain them."""
