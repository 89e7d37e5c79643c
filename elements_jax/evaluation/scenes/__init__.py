"""Edits with a known true result, and their scores."""
