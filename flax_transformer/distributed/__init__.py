"""One model on many devices and in several processes."""
