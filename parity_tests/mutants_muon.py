"""Mutants of Muon: what changes an update without changing its shape."""

from mutants import Mutant

from flax_transformer.config import OptimizerConfig

_F, _T = "flax_transformer/training/muon.py", "torch_reference/training/muon.py"
_FLAX_MATRICES, _TORCH_MATRICES = "flax_transformer/training/matrices.py", "torch_reference/training/matrices.py"
_FLAX_STATE, _TORCH_STATE = "flax_transformer/training/scale_by_muon.py", "torch_reference/training/muon_optimizer.py"
_MUON = {"optimizer": OptimizerConfig(name="muon", schedule="inverse_sqrt", warmup_steps=4)}
_STACKED = {"scan_layers": True, "num_encoder_layers": 2, "num_decoder_layers": 2}


def _mutant(name: str, file: str, old: str, new: str, model: dict | None = None) -> Mutant:
    return Mutant(name, file, old, new, "optimizer", model=model or {}, training=_MUON)


MUON_MUTANTS = (
    _mutant("another coefficient of the iteration", _F, "(3.4445, -4.7750,", "(3.4445, -4.7500,"),
    _mutant("four steps in place of five", _T, "_STEPS = 5", "_STEPS = 4"),
    _mutant("the fifth power left out", _F, "(b * gram + c * (gram @ gram)) @ x", "b * gram @ x"),
    _mutant("momentum without Nesterov", _TORCH_STATE, 'parameter.grad.lerp(momentum, group["beta"])', "momentum"),
    _mutant("momentum summed, not averaged", _FLAX_STATE, "m + (1 - beta) * (g - m)", "beta * m + g"),
    _mutant("shares of momentum and gradient exchanged", _TORCH_STATE, '1 - group["beta"])', 'group["beta"])'),
    _mutant("size by the rows alone", _F, "max(x.shape[-2:])", "x.shape[-2]"),
    _mutant("updates of norm 1, not of Adam's size", _T, "_ADAMS_SIZE = 0.2", "_ADAMS_SIZE = 1.0"),
    _mutant("one norm for all stacked layers", _F, "axis=(-2, -1), keepdims=True", "keepdims=True", _STACKED),
    _mutant("tables and heads by Muon too", _TORCH_MATRICES, '"layers" in name.split(".") and ', ""),
    _mutant(
        "vectors of stacked layers by Muon too",
        _FLAX_MATRICES,
        "path and is_matrix(parameter)",
        "path and parameter.ndim > 1",
        _STACKED,
    ),
    _mutant("matrices without weight decay", _TORCH_STATE, '1 - group["lr"] * group["weight_decay"]', "1"),
)
