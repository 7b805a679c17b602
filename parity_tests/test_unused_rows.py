"""Tables with more rows than the tokenizer has entries (T5): no served model generates a row without a token."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from served_models import ENTRIES, ROWS, TEXTS, TOKENIZER, WITH_UNUSED_ROWS, export_with_unused_rows, padded

from flax_transformer.cli import main as cli
from flax_transformer.config import GenerationConfig
from flax_transformer.interop.ctranslate2_export import save_ctranslate2, token_names
from flax_transformer.interop.exported import Exported
from flax_transformer.interop.state_dict import read_weights
from torch_reference.decoding.generate import generate, read_tokens
from torch_reference.interop.export import load_export


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_with_unused_rows(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def expected(source: Path) -> list[list[int]]:
    """The tokens that the twin writes greedily with the mask; without it, it writes others."""
    ids, lengths = map(torch.tensor, padded(TEXTS))
    plain, masked = (
        read_tokens(generate(load_export(source), ids, lengths, GenerationConfig(12, num_tokens=limit)))
        for limit in (None, ENTRIES)
    )
    assert all(max(row) >= ENTRIES for row in plain)
    assert len(set(map(tuple, masked))) > 1
    return masked


MODES = {"greedy": {}, "beam": {"num_beams": 4}, "sample": {"do_sample": True, "top_k": 0}}


@pytest.mark.parametrize("mode", MODES)
def test_transformers_suppresses_them(mode: str, source: Path, expected: list[list[int]], tmp_path: Path):
    transformers = pytest.importorskip("transformers", reason="needs transformers, to read what is exported for it")
    assert cli.main(["export", str(source), str(tmp_path / "theirs"), "--format", "hf"]) == 0
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "theirs").eval()
    ids, _ = padded(TEXTS)
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(ids != TOKENIZER.pad_id)}

    def tokens() -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return model.generate(**inputs, **MODES[mode])[:, 1:]

    found = tokens()
    assert found.max() < ENTRIES
    if mode == "greedy":
        assert [row[: len(other)] for row, other in zip(found.tolist(), expected, strict=True)] == expected
    model.generation_config.suppress_tokens = None
    assert tokens().max() >= ENTRIES


def test_they_come_back_from_transformers_without_a_remark(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert cli.main(["export", str(source), str(tmp_path / "theirs"), "--format", "hf"]) == 0
    assert cli.main(["import", str(tmp_path / "theirs"), str(tmp_path / "back")]) == 0
    assert "not carried over" not in capsys.readouterr().out
    there, back = (read_weights(folder / "model.safetensors") for folder in (source, tmp_path / "back"))
    assert there.keys() == back.keys()
    assert all(np.array_equal(there[name], back[name]) for name in there)


CT2_MODES = {
    "greedy": {"beam_size": 1},
    "beam": {"beam_size": 4},
    "sample": {"beam_size": 1, "sampling_topk": 0},
}


@pytest.mark.parametrize("mode", CT2_MODES)
@pytest.mark.parametrize("compute_type", ["float32", "int8"])
def test_ctranslate2_gives_them_no_probability(
    mode: str, compute_type: str, source: Path, expected: list[list[int]], tmp_path: Path
):
    ctranslate2 = pytest.importorskip("ctranslate2", reason="needs CTranslate2, to read what is exported for it")
    tokenizer = Exported.load(source).tokenizer
    names = token_names(ROWS, tokenizer)
    rows = [[names[token] for token in row] for row in tokenizer.encode(TEXTS)]

    def tokens(folder: Path, rows: list[list[str]], names: list[str]) -> list[list[int]]:
        """In int8 on some processors one of the rows is empty."""
        translator = ctranslate2.Translator(str(folder), compute_type=compute_type, intra_threads=1)
        ctranslate2.set_random_seed(0)
        found = translator.translate_batch(rows, max_decoding_length=12, min_decoding_length=0, **CT2_MODES[mode])
        return [[names.index(token) for token in result.hypotheses[0]] for result in found]

    assert cli.main(["export", str(source), str(tmp_path / "served"), "--format", "ctranslate2"]) == 0
    found = tokens(tmp_path / "served", rows, names)
    assert max(itertools.chain(*found)) < ENTRIES
    if (mode, compute_type) == ("greedy", "float32"):
        assert found == expected
    # Which knows of no tokens.
    save_ctranslate2(tmp_path / "all", WITH_UNUSED_ROWS, read_weights(source / "model.safetensors"))
    ids = [[f"<{token}>" for token in row] for row in tokenizer.encode(TEXTS)]
    assert max(itertools.chain(*tokens(tmp_path / "all", ids, token_names(ROWS)))) >= ENTRIES
