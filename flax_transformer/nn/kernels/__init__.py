"""What only JAX needs: kernels, the choice among them, random bits, and layers run as a loop."""
