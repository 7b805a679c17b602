"""The doctor on PyTorch models: planted bugs are named, good models are left alone and given back as they were."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from flax_transformer import doctor
from flax_transformer.errors import UserError
from tests.doctor import good, matrix
from tests.doctor.planting import load

ROOT = Path(__file__).parent.parent
# One of each subject; the whole table is marked slow.
SAMPLE = {
    "seq2seq": (
        "causal mask on the encoder", "causal mask on cross-attention", "target's mask as memory mask",
        "no padding mask on cross-attention", "no positions on the target", "no cross-attention", "decoder fed zeros",
        "targets not shifted", "padding counts in the loss", "end token ignored", "generation starts with the pad",
    ),
    "decoder": (
        "no causal mask", "causal mask transposed", "causal mask off by one", "mask of -10", "mask after softmax",
        "rotary of position 0", "no scale", "softmax over heads", "heads reshaped without transpose",
        "dropout at inference", "layers in a plain list", "queries detached", "cache cut to the last token",
        "learned table too short", "embeddings of variance 1, tied",
    ),
    "encoder": (
        "mean over pads too", "padding mask of row 0 for all", "positions in pairs",
        "softmax at the end of the classifier",
        "batch norm for layer norm, over the batch", "forward writes a buffer", "no residual around attention",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in SAMPLE.items() for name in names])
def test_planted_bug_is_named(kind: str, name: str):
    bug = next(bug for bug in matrix.bugs_of("torch") if bug.name == name)
    outcome = matrix.examine_bug("torch", bug, kind, seed=0)
    assert outcome.found
    assert outcome.named, outcome


@pytest.mark.parametrize("kind", ["seq2seq", "decoder", "encoder"])
@pytest.mark.parametrize("options", [{}, {"norm_first": True, "positions": "rotary"}, {"positions": "relative"}])
def test_good_model_is_healthy(kind: str, options: dict[str, object]):
    report = good.examine_good(good.Case("torch", kind, 0, dict(options)))
    assert report.exit_code(strict=True) == 0, str(report)
    figures = {result.probe: result.figure for result in report.results}
    assert figures["scale"] == pytest.approx(1)
    assert figures["batch"] == 0


def test_influence_matrix_is_the_mask():
    report = matrix.report_on("torch", None, "decoder", seed=0)
    (heat_map,) = report.heat_maps
    np.testing.assert_array_equal(heat_map.seen, np.tril(np.ones((7, 7), bool)))
    assert heat_map.is_as_expected


def test_consequences_are_folded_under_their_cause():
    bug = next(bug for bug in matrix.bugs_of("torch") if bug.name == "no cross-attention")
    report = matrix.report_on("torch", bug, "seq2seq", seed=0)
    illnesses = [d for d in report.diagnoses if d.result.verdict == "ill"]
    assert [d.result.cause for d in illnesses] == ["no-source"]
    assert illnesses[0].consequences


def test_model_is_given_back_as_it_was():
    module = load("torch_models.py")
    given = module.build("seq2seq", module.Config(), 0)
    model = given["model"].train()
    model.encoder.eval()
    model.projection.weight.grad = torch.ones_like(model.projection.weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pointers = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    attributes = {name: sorted(vars(m)) for name, m in model.named_modules()}
    states = torch.get_rng_state(), cast(Any, np.random.get_state())[1].copy(), random.getstate()  # noqa: NPY002
    doctor.examine(**given)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert pointers == {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    assert modes == [m.training for m in model.modules()]
    assert attributes == {name: sorted(vars(m)) for name, m in model.named_modules()}
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], cast(Any, np.random.get_state())[1])  # noqa: NPY002
    assert states[2] == random.getstate()
    assert torch.equal(model.projection.weight.grad, torch.ones_like(model.projection.weight))
    assert torch.get_default_dtype() == torch.float32
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_model_that_changes_itself_is_found_and_given_back():
    module = load("torch_models.py", next(b for b in matrix.bugs_of("torch") if b.name == "forward writes a buffer"))
    given = module.build("encoder", module.Config(), 0)
    before = {name: tensor.clone() for name, tensor in given["model"].state_dict().items()}
    report = doctor.examine(**given)
    assert "mutates" in {result.cause for result in report.results}
    assert all(torch.equal(before[name], tensor) for name, tensor in given["model"].state_dict().items())


def test_assert_healthy_fails_with_the_diagnosis():
    module = load("torch_models.py", next(b for b in matrix.bugs_of("torch") if b.name == "no causal mask"))
    given = module.build("decoder", module.Config(), 0)
    with pytest.raises(AssertionError, match="the causal mask is missing"):
        doctor.assert_healthy(**given)
    clean = load("torch_models.py")
    doctor.assert_healthy(**clean.build("decoder", clean.Config(), 0), strict=True)


def test_missing_pieces_are_named():
    module = load("torch_models.py")
    model = module.build("seq2seq", module.Config(), 0)["model"]
    report = doctor.examine(model)
    missing = {r.probe: r.detail for r in report.results if r.verdict == "not applicable"}
    assert missing["loss"] == "loss was not given"
    assert missing["generation"] == "generate was not given"
    assert "pad_id" in missing["padding"]


class SequenceFirst(nn.Module):
    """As torch.nn builds it where batch_first is not given, with masks made by the caller."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(23, 32), nn.Embedding(40, 32)
        self.transformer = nn.Transformer(32, 4, 1, 1, 64)
        self.output = nn.Linear(32, 23)

    def forward(self, src, tgt, tgt_mask, src_key_padding_mask, memory_key_padding_mask):
        source, target = (self.table(x) + self.places(torch.arange(len(x)))[:, None] for x in (src, tgt))
        x = self.transformer(
            source, target, tgt_mask=tgt_mask, src_key_padding_mask=src_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
        )  # fmt: skip
        return {"logits": self.output(x), "loss": None}


@pytest.mark.filterwarnings("ignore:enable_nested_tensor", "ignore:Support for mismatched key_padding_mask")
def test_masks_and_layout_are_found_out():
    report = doctor.examine(SequenceFirst(), pad_id=0)
    assert not report.is_ill, str(report)
    assert "(length, rows)" in report.called_as
    assert "tgt_mask=(length, length), -inf = blocked" in report.called_as


class LastOnly(nn.Module):
    """Returns all logits only where it is given labels, and in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        module = load("torch_models.py")
        self.inner = module.Decoder(module.Config())

    def forward(self, idx, targets=None):
        logits = self.inner(idx)
        return (logits, None) if targets is not None else (logits[:, -1:], None)


def test_labels_are_given_where_logits_come_back_with_them_only():
    report = doctor.examine(LastOnly())
    assert not report.is_ill
    assert report.kind == "decoder"


def test_what_cannot_be_examined_says_why():
    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 8)

        def forward(self, ids):
            return self.table(ids).mean()

    with pytest.raises(doctor.ExaminationError, match="it returns its loss"):
        doctor.examine(Loss())
    with pytest.raises(UserError, match="kind: expected seq2seq, decoder or encoder"):
        doctor.examine(Loss(), kind="seq")  # type: ignore[arg-type]
    module = load("torch_models.py")
    with pytest.raises(UserError, match="expected --kind"):
        doctor.examine(module.Encoder(module.Config(token_level=True)))


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "ignore", "-c", program], cwd=ROOT, capture_output=True, text=True)


def test_importing_the_doctor_loads_no_framework():
    program = (
        "import sys, flax_transformer.doctor.command; print([n for n in ('jax', 'flax', 'torch') if n in sys.modules])"
    )
    assert run_python(program).stdout.strip() == "[]"


def test_torch_side_runs_where_no_jax_is():
    program = """
import sys
sys.modules.update({name: None for name in ("jax", "flax", "jaxlib", "optax")})
from flax_transformer import doctor
from tests.doctor.planting import load
module = load("torch_models.py")
print(doctor.examine(**module.build("decoder", module.Config(layers=1), 0)).is_ill)
"""
    result = run_python(program)
    assert result.stdout.strip() == "False", result.stderr
