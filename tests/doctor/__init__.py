"""Models for the doctor to examine: clean ones, and one-line changes that make them ill."""
