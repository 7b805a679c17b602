"""What PyTorch is measured with: layers of torch.nn compute what the twin does, and no model reads padding."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from flax_transformer.bench.peers import of_torch_nn, of_transformers
from flax_transformer.bench.torch_side import logits_of, place
from flax_transformer.config import ModelConfig
from flax_transformer.data.batches import ClassifierBatch, Seq2SeqBatch
from flax_transformer.parity.cases import make_case
from flax_transformer.presets import SIZES
from torch_reference.nn.masks import padding_mask
from torch_reference.nn.models import create_model

ARCHITECTURES = ["classifier", "seq2seq"]


def model_and_batch(architecture: Any) -> tuple[ModelConfig, Any, torch.Tensor]:
    """A model as the benchmarks have it, a ragged batch, and which of the logits are real."""
    config = replace(SIZES["mini"], architecture=architecture, norm_first=False, activation="relu")
    batch = make_case(config, seed=0).batch_of_step(0)
    assert isinstance(batch, ClassifierBatch | Seq2SeqBatch)
    kept = batch.source_lengths > 0  # torch.nn has NaN for a row of padding alone
    batch = place(type(batch)(*(array[kept] for array in batch)), "cpu")
    if architecture == "classifier":
        return config, batch, torch.ones(len(batch.source), dtype=torch.bool)
    return config, batch, padding_mask(batch.target_lengths - 1, batch.target.shape[1] - 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_of_torch_nn_compute_what_the_twin_does(architecture: str) -> None:
    config, batch, real = model_and_batch(architecture)
    twin = create_model(config, 0).eval()
    with torch.no_grad():
        expected, found = (logits_of(model, batch)[real] for model in (twin, of_torch_nn(twin).eval()))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_models_of_transformers_leave_padding_out(architecture: str) -> None:
    config, batch, real = model_and_batch(architecture)
    model = of_transformers(config).eval()
    is_real = padding_mask(batch.source_lengths, batch.source.shape[1])
    other = batch._replace(source=torch.where(is_real, batch.source, 7))
    with torch.no_grad():
        logits, same = (logits_of(model, given)[real] for given in (batch, other))
    assert logits.isfinite().all()
    torch.testing.assert_close(same, logits)
