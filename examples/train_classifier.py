"""Train a text classifier on your own CSV file, then predict: ``python examples/train_classifier.py`` (a minute).

Needs ``pip install ".[train]"``.
"""

import csv
import itertools
import random
import tempfile
from pathlib import Path

from flax_transformer import ModelConfig, TrainConfig, load, train
from flax_transformer.config import BatchConfig, ClassificationData, TokenizerConfig

OPENINGS = ["Hello,", "Hi there,", "Dear support team,", "Good morning.", "Sorry to bother you, but", "Quick question:"]
PROBLEMS = {
    "billing": ["I was charged twice", "the invoice shows the wrong amount", "my refund has not arrived"],
    "shipping": ["my parcel is late", "the box arrived damaged", "the courier left it next door"],
    "account": ["I cannot log in", "the password link has expired", "please change my email address"],
}
DETAILS = [
    "for order 4711",
    "since Monday",
    "after the last update",
    "and nobody answers the phone",
    "for the second time",
]
CLOSINGS = ["Please help.", "Thanks!", "What should I do?", "Kind regards, Kim", ""]


def write_tickets(path: Path) -> None:
    """Support tickets with the queue that each belongs to."""
    rows = [
        (" ".join([opening, problem, detail + ".", closing]).strip(), queue)
        for queue, problems in PROBLEMS.items()
        for opening, problem, detail, closing in itertools.product(OPENINGS, problems, DETAILS, CLOSINGS)
    ]
    random.Random(0).shuffle(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("body", "queue"), *rows])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tickets = Path(folder, "tickets.csv")
        write_tickets(tickets)
        config = TrainConfig(
            data=ClassificationData(path=str(tickets), text_column="body", label_column="queue"),
            tokenizer=TokenizerConfig(vocab_size=500),
            model=ModelConfig(architecture="classifier", d_model=64, num_heads=4, d_ff=128, num_encoder_layers=1),
            batch=BatchConfig(size=32, max_source_length=64, buckets=2),
            epochs=3,
        )
        # A tenth of the file is held out for validation, and a tenth for the test score.
        run = train(config, Path(folder, "run"))

        unseen = ["I was charged the wrong amount", "the parcel arrived damaged", "I cannot change my password"]
        for text, prediction in zip(unseen, run.predict(unseen), strict=True):
            print(f"{prediction.value:<10}{prediction.score:.2f}  {text}")

        # An export holds everything needed to predict, and both frameworks read it.
        export = Path(folder, "export")
        run.export(export)
        assert load(export).predict(unseen) == run.predict(unseen)


if __name__ == "__main__":
    main()
