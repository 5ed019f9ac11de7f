"""Training: one step, the loop over steps and epochs, metrics, checkpoints, and how they are built."""
