"""Training: one loop, and three stages that differ in their loss and its wiring."""
