"""Imported models against transformers: generated tokens of both twins."""

from typing import Any

import numpy as np
import pytest
import torch

from flax_transformer.config import GenerationConfig
from flax_transformer.decoding import generate as flax_generate
from torch_reference.decoding import generate as torch_generate

pytest.importorskip("transformers", reason="needs transformers, to compare with its models")

from hf_models import GENERATORS, LENGTHS, flax_twin, imported, in_dtype, random_ids, source_mask, torch_twin


def check_tokens(name: str, config: GenerationConfig, **settings: Any) -> None:
    """Tokens of both twins are those of ``model.generate``."""
    model, model_config, weights = imported(name)
    source = random_ids(model, LENGTHS, model_config.source_vocab_size)
    expected = model.generate(
        input_ids=torch.tensor(source).long(),
        attention_mask=source_mask(source),
        max_new_tokens=config.max_new_tokens,
        do_sample=False,
        forced_eos_token_id=None,
        decoder_start_token_id=model_config.bos_id,
        **settings,
    )[:, 1:].numpy()
    expected = [row[: _end(row, model_config.eos_id)].tolist() for row in expected]
    narrow = in_dtype(model_config, weights, "float32")
    of_torch = torch_generate.generate(torch_twin(*narrow), torch.tensor(source), torch.tensor(LENGTHS), config)
    of_flax = flax_generate.generate(flax_twin(*narrow), source, LENGTHS, config)
    assert torch_generate.read_tokens(of_torch) == expected
    assert flax_generate.read_tokens(of_flax) == expected
    assert len({tuple(row) for row in expected}) > 1  # what is written depends on what is read


def _end(row: np.ndarray, eos_id: int) -> int:
    ends = np.flatnonzero(row == eos_id)
    return int(ends[0]) if len(ends) else len(row)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.sample(3)
def test_greedy_tokens_are_those_of_transformers(name: str):
    check_tokens(name, GenerationConfig(max_new_tokens=12), num_beams=1)


# One of each kind of projection; the search is the same for the others.
QUICK = {"bart", "marian-two-tables", "t5-1.1"}
BEAMS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in GENERATORS]


@pytest.mark.parametrize("name", BEAMS)
def test_tokens_of_beam_search_are_those_of_transformers(name: str):
    config = GenerationConfig(
        max_new_tokens=12,
        strategy="beam",
        beam_width=3,
        length_penalty="mean",
        length_alpha=1.0,
        early_stopping=False,
    )
    check_tokens(name, config, num_beams=3, length_penalty=1.0, early_stopping=False)
