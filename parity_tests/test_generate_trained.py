"""A model that was trained for it generates the same in both twins: token ids of real manifests, scores to rounding."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch

import torch_reference
from flax_transformer.config import GenerationConfig, save_config
from flax_transformer.data.batches import Sequences
from flax_transformer.data.constraint import json_constraint
from flax_transformer.data.manifests.task import MANIFEST_SCHEMA
from flax_transformer.data.tasks import load_splits
from flax_transformer.decoding import generate as flax_generate
from flax_transformer.interop import state_dict as bridge
from flax_transformer.interop.export import CONFIG_FILE, WEIGHTS_FILE, load_export
from flax_transformer.training.run import Run
from torch_reference.decoding import generate as torch_generate

RUNS = sorted(path.parent for path in (Path(__file__).parent.parent / "runs").glob("manifests-*/results.json"))
TEXTS, ROWS = 208, 16

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not RUNS, reason="needs a trained run: make train"),
    pytest.mark.usefixtures("x64"),
]


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: folder.name)
@pytest.mark.parametrize(
    "settings",
    [
        GenerationConfig(255),
        GenerationConfig(255, strategy="beam", beam_width=4, n_best=2, early_stopping=False),
        GenerationConfig(255, strategy="sample", temperature=1.5, top_p=0.95),
    ],
    ids=lambda settings: settings.strategy,
)
@pytest.mark.parametrize("is_constrained", [False, True], ids=["free", "json"])
def test_a_trained_model_generates_the_same_in_both_twins(
    folder: Path, settings: GenerationConfig, is_constrained: bool, tmp_path: Path
) -> None:
    run = Run.load(folder)
    export_in_float64(run, tmp_path)
    model: Any = load_export(tmp_path)
    twin: Any = torch_reference.load(tmp_path)
    constraint = json_constraint(MANIFEST_SCHEMA, run.tokenizer) if is_constrained else None
    sources = Sequences(run.tokenizer.encode(load_splits(run.config.data, run.config.seed).test.sources[:TEXTS]))
    complete = 0
    for rows in np.argsort(sources.lengths, kind="stable").reshape(-1, ROWS):
        ids, lengths = sources.padded(rows, int(sources.lengths[rows].max()), run.tokenizer.pad_id)
        ours = jax.device_get(flax_generate.generate(model, ids, lengths, settings, constraint=constraint))
        tensors = torch.tensor(ids), torch.tensor(lengths)
        theirs = torch_generate.generate(twin, *tensors, settings, constraint=constraint)
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
        np.testing.assert_array_equal(ours.stopped_by_eos, theirs.stopped_by_eos)
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=0, atol=1e-10)
        complete += int(ours.stopped_by_eos.sum())
    assert complete >= 0.9 * TEXTS * settings.n_best, "most outputs of a trained model end before the limit"


def export_in_float64(run: Run, folder: Path) -> None:
    weights = bridge.to_torch(bridge.get_weights(run.best_model()))
    config = dataclasses.replace(run.config.model, dtype="float64", param_dtype="float64")
    save_config(config, folder / CONFIG_FILE)
    safetensors.numpy.save_file(
        {key: array.astype(np.float64) for key, array in weights.items()}, folder / WEIGHTS_FILE
    )
