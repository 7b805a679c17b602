"""``python -m flax_transformer.doctor TARGET``."""

import sys

from flax_transformer.doctor.command import main

if __name__ == "__main__":
    sys.exit(main())
