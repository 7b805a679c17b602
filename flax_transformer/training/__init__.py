"""Training runs: the jitted step, its input, checkpoints, reports and the loop that joins them. Loads jax and grain."""
