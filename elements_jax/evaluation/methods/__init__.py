"""Editing methods: ours, baselines that run here, and the inputs of external ones."""
