"""Public benchmarks of edits."""
