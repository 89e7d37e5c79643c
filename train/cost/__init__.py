"""What a training step costs, measured or compiled ahead of time."""
