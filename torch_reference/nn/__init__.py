"""The model in PyTorch, bottom to top; each module here has a twin in ``flax_transformer.nn``."""
