"""Export folders."""
