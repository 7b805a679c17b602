"""Throughput, memory and scaling of equal models, each candidate in its own process."""
