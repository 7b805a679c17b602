"""Pairs of texts, as of entailment: ids and logits of imported encoders against transformers, in both twins."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import torch
from hf_models import VOCABULARY, flax_twin, in_dtype, random_model, torch_twin
from twins import STACK, ulps

from flax_transformer.data.batches import Encoded, Shape
from flax_transformer.data.encoding import check_pairs, encode_sources
from flax_transformer.errors import UserError
from flax_transformer.interop.huggingface.importing import Imported, import_checkpoint

transformers = pytest.importorskip("transformers", reason="needs transformers, to compare with its models")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "a", "man", "cat", "sat", "slept", "ran", "red", "on"]
WORDS += ["mat", "and", "was", "not"]
LETTERS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdefghijklmnopqrstuvwxyz"]
PAIRS = [
    ("the man slept", "a man was not on the mat"),
    ("a cat", "the cat sat on the red mat and slept and ran"),
    ("the red cat sat on the mat and the man slept and ran", "was"),
    ("a", "not"),
]


Both = tuple[Any, Any, Imported, Any, Any]


def tokenizer_of(name: str) -> Any:
    entries = WORDS if name == "bert" else LETTERS
    vocabulary = {entry: number for number, entry in enumerate(entries)}
    assert len(vocabulary) <= VOCABULARY
    if entries is WORDS:
        return transformers.BertTokenizer(vocab=vocabulary)
    return transformers.RobertaTokenizer(vocab=vocabulary, merges=[])


@pytest.fixture(scope="module", params=["bert", "roberta"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Tokenizer and model of transformers, what is imported of them, and the twins with its weights."""
    folder, tokenizer, model = (
        tmp_path_factory.mktemp("theirs"),
        tokenizer_of(request.param),
        random_model(request.param),
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    imported = import_checkpoint(folder)
    twins = in_dtype(imported.config, imported.weights, "float32")
    return tokenizer, model, imported, torch_twin(*twins), jax.jit(flax_twin(*twins))


def theirs(
    tokenizer: Any, model: torch.nn.Module, pairs: list[tuple[str, str]], longest: int
) -> tuple[Any, np.ndarray]:
    settings = {"truncation": True, "max_length": longest, "padding": True, "return_tensors": "pt"}
    encoded = tokenizer(*map(list, zip(*pairs, strict=True)), **settings)
    with torch.no_grad():
        return encoded, model(**encoded).logits.numpy()


@pytest.mark.parametrize("longest", [39, 12, 9])
def test_ids_and_logits_are_those_of_transformers(both: Both, longest: int):
    tokenizer, model, imported, of_torch, of_flax = both
    sources = encode_sources(PAIRS, imported.tokenizer, longest, "cut")
    ids, lengths = sources.sequences.padded(np.arange(len(PAIRS)), 39, imported.config.pad_id)
    encoded, expected = theirs(tokenizer, model, PAIRS, longest)
    width = encoded["input_ids"].shape[1]
    assert ids[:, :width].tolist() == encoded["input_ids"].tolist()
    assert width == lengths.max()
    assert sources.cut == [len(tokenizer(*pair)["input_ids"]) > longest for pair in PAIRS]
    with torch.no_grad():
        logits = of_torch(torch.tensor(ids[:, :width]), torch.tensor(lengths)).numpy()
    assert ulps(logits, expected) == 0
    assert ulps(np.asarray(of_flax(ids, lengths)), expected) <= STACK
    # Exchanged, a pair means something else; and so it does without the type of the second text.
    _, exchanged = theirs(tokenizer, model, [(second, first) for first, second in PAIRS], longest)
    assert (np.abs(logits - exchanged).max(axis=1) > 1e-3).all()
    if imported.config.token_types > 1:
        of_one_type = model(**encoded | {"token_type_ids": torch.zeros_like(encoded["token_type_ids"])}).logits
        assert ulps(logits, of_one_type.detach().numpy()) > 2 * STACK


def test_packed_pairs_have_the_logits_of_rows_of_their_own(both: Both):
    _, _, imported, model, _ = both
    sources = encode_sources(PAIRS, imported.tokenizer, 12, "cut").sequences
    encoded = Encoded(sources, np.zeros(len(PAIRS), np.int32), imported.config.pad_id, imported.tokenizer.unk_id)
    alone = encoded.batch(np.arange(len(PAIRS)), Shape(12, 0))
    packed = encoded.packed(np.array([[2, 0, 1], [3, -1, -1]]), Shape(36, 0))
    with torch.no_grad():
        expected = model(torch.tensor(alone.source), torch.tensor(alone.source_lengths)).numpy()
        segments = torch.tensor(packed.source_segments)
        found = model(torch.tensor(packed.source), source_segments=segments, num_segments=3).numpy()
    assert ulps(found.reshape(6, -1)[:4], expected[[2, 0, 1, 3]]) <= STACK


def test_token_types_that_separators_do_not_tell_are_refused(both: Both):
    """As of a BERT with the tokenizer of XLM-R, such as multilingual E5, which gives both texts the type 0."""
    imported = both[2]
    check_pairs(imported.tokenizer, imported.config)
    if imported.config.token_types == 1:
        with pytest.raises(UserError, match=r"its token types are \[0, 0, 0, 1, 1, 1\], got \[0, 0, 0, 0, 0, 0\]"):
            check_pairs(imported.tokenizer, dataclasses.replace(imported.config, token_types=2))
