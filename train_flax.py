"""Train a task: ``python train_flax.py imdb --preset assignment``; ``--help`` lists the tasks and explains flags."""

import sys

from flax_transformer.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
