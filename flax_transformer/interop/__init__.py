"""The weights in PyTorch's names and layouts, and export folders."""
