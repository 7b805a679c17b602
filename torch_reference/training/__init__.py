"""The optimizer and the training step."""
