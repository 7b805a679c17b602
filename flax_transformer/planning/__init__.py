"""What a training step costs, counted from the config and by the TPU compiler."""
