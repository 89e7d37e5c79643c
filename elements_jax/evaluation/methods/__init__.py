"""Methods that edit: ours, baselines that run here, and the inputs of others."""
