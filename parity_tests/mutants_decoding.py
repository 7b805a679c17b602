"""Mutants of cached decoding and generation; see :mod:`mutants`."""

from mutants import Mutant

_T, _F = "torch_reference", "flax_transformer"
DECODING_MUTANTS = (
    Mutant(
        "cache written one place early",
        f"{_T}/nn/attention.py",
        "old[:, :, offset : offset + entry.shape[2]] = entry",
        "old[:, :, max(offset - 1, 0) : max(offset - 1, 0) + entry.shape[2]] = entry",
        "cached decoding",
    ),
    Mutant(
        "cached queries masked as the first",
        f"{_T}/nn/models.py",
        "AttentionMask(causal=True, query_offset=offset)",
        "AttentionMask(causal=True)",
        "cached decoding",
    ),
    Mutant(
        "cached tokens all at position 0",
        f"{_T}/nn/models.py",
        "self.target_embedding(self._target_table, target, offset)",
        "self.target_embedding(self._target_table, target)",
        "cached decoding",
    ),
    Mutant(
        "generation begins with padding",
        f"{_F}/decoding/step.py",
        "self.model.config.bos_id",
        "self.model.config.pad_id",
        "generated ids",
    ),
)
