"""The cost of a training step, by its arithmetic or compiled ahead of time."""
