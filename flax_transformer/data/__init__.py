"""Datasets, tokenizers and batches. Plain numpy: used by both frameworks, loads neither."""
