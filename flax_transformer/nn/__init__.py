"""The model in Flax NNX, bottom to top; each module here has a twin in ``torch_reference.nn``."""
