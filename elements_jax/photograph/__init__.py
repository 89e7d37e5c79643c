"""A complete photograph: its file, and edits at its own resolution."""
