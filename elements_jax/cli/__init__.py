"""The `elements` command: a module for each of its commands."""
