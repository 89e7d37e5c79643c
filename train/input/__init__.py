"""Records as training input: stored, in memory, cached, augmented."""
