"""Train dates -> ISO 8601 in JAX, ship the model to PyTorch: ``python examples/ship_to_pytorch.py`` (a minute).

Needs ``pip install ".[train,torch]"``; the code below the export needs only ``".[torch]"``.
"""

import csv
import datetime
import random
import tempfile
from pathlib import Path

import numpy as np
import torch

import torch_reference
from flax_transformer import ModelConfig, OptimizerConfig, TrainConfig, train
from flax_transformer.config import BatchConfig, Seq2SeqData, TokenizerConfig

FORMATS = ["%d %B %Y", "%B %d, %Y", "%a %d %b %Y", "%d.%m.%Y", "%d %b %y"]
FIRST_DAY = datetime.date(2000, 1, 1)


def write_dates(path: Path, count: int) -> None:
    """Dates as people write them, and as ISO 8601."""
    draw = random.Random(0)
    dates = [FIRST_DAY + datetime.timedelta(days=draw.randrange(10_000)) for _ in range(count)]
    rows = [(date.strftime(draw.choice(FORMATS)), date.isoformat()) for date in dates]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("source", "target"), *rows])


def padded(rows: list[list[int]], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (batch, length), and how many of each row are real."""
    ids = np.full((len(rows), max(map(len, rows))), pad_id, np.int32)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    return ids, np.array([len(row) for row in rows], np.int32)


def main() -> None:
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as folder:
        dates = Path(folder, "dates.csv")
        write_dates(dates, 6_000)
        config = TrainConfig(
            data=Seq2SeqData(path=str(dates)),
            tokenizer=TokenizerConfig(vocab_size=400),
            model=ModelConfig(
                d_model=64,
                num_heads=4,
                d_ff=256,
                num_encoder_layers=1,
                num_decoder_layers=1,
                positions="rope",
                dropout=0.0,
            ),
            batch=BatchConfig(size=32, max_source_length=32, max_target_length=32, buckets=1),
            optimizer=OptimizerConfig(learning_rate=5e-3),
            epochs=2,
        )
        run = train(config, Path(folder, "run"))
        texts = ["17 March 2011", "Wed 05 Jan 2022", "December 31, 2009"]
        expected = ["2011-03-17", "2022-01-05", "2009-12-31"]
        print({text: prediction.value for text, prediction in zip(texts, run.predict(texts), strict=True)})
        run.export(Path(folder, "export"))

        # Both models get the same token ids: the texts, and the begin token with the expected outputs.
        tokenizer = run.tokenizer
        source, source_lengths = padded(tokenizer.encode(texts), tokenizer.pad_id)
        answers = [[tokenizer.bos_id, *ids] for ids in tokenizer.encode(expected)]
        target, target_lengths = padded(answers, tokenizer.pad_id)
        in_jax = np.asarray(run.model(source, target, source_lengths, target_lengths))

        shipped = torch_reference.load(Path(folder, "export"))  # an ordinary torch.nn.Module, in evaluation mode
        with torch.inference_mode():
            in_torch = shipped(*map(torch.as_tensor, (source, target, source_lengths, target_lengths))).numpy()
        difference = np.abs(in_jax - in_torch).max() / np.abs(in_torch).max()
        print(f"logits of shape {in_torch.shape}: largest difference {difference:.1e} of the largest logit")
        assert difference < 8 * np.finfo(np.float32).eps, "the models differ; `flax-transformer verify` says where"


if __name__ == "__main__":
    main()
