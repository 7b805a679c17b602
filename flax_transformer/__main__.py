"""``python -m flax_transformer`` is the ``flax-transformer`` command."""

import sys

from flax_transformer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
