"""The ``flax-transformer`` command: one file a command."""
