"""Mutants of the mixers that take the place of attention."""

from mutants import Mutant

_T, _F = "torch_reference", "flax_transformer"
LINEAR = {"mixer": "linear"}
MIXER_MUTANTS = (
    Mutant(
        "features without the 1 of elu + 1",
        f"{_T}/nn/linear_attention.py",
        "wide + 1, torch.exp",
        "wide, torch.exp",
        "attention",
        LINEAR,
    ),
    Mutant(
        "features summed up in float32",
        f"{_F}/nn/linear_attention.py",
        "x.astype(jnp.promote_types(x.dtype, jnp.float32))",
        "x.astype(jnp.float32)",
        "attention",
        LINEAR,
    ),
    Mutant(
        "linear attention not normalized",
        f"{_T}/nn/linear_attention.py",
        " / torch.where(has_keys, total, 1)[..., None]",
        "",
        "attention",
        LINEAR,
    ),
    Mutant(
        "causal mask missing within a chunk",
        f"{_T}/nn/linear_attention.py",
        "torch.tril(torch.einsum",
        "(torch.einsum",
        "reachability",
        LINEAR,
    ),
    Mutant(
        "a token does not attend to itself",
        f"{_F}/nn/linear_attention.py",
        "queries, keys))",
        "queries, keys), -1)",
        "attention",
        LINEAR,
    ),
    Mutant(
        "sums before a chunk hold the chunk",
        f"{_F}/nn/linear_attention.py",
        "x[:, :, :-1] for x in totals",
        "x[:, :, 1:] for x in totals",
        "reachability",
        LINEAR,
    ),
    Mutant(
        "padding summed up",
        f"{_T}/nn/linear_attention.py",
        "    if lengths is None:\n",
        "    if True:\n",
        "reachability",
        LINEAR,
    ),
    Mutant(
        "padding of the memory summed up",
        f"{_F}/nn/layers.py",
        "project(memory, lengths=memory_mask.key_lengths)",
        "project(memory)",
        "reachability",
        LINEAR,
    ),
    Mutant(
        "no gradient through the normalizer",
        f"{_T}/nn/linear_attention.py",
        "torch.where(has_keys, total, 1)[",
        "torch.where(has_keys, total, 1).detach()[",
        "gradients",
        LINEAR,
    ),
    Mutant(
        "sums of earlier tokens left out",
        f"{_T}/nn/linear_attention.py",
        "if state is None else state",
        "if True else state",
        "cached decoding",
        LINEAR,
    ),
    Mutant(
        "padding summed up in generation only",
        f"{_F}/nn/layers.py",
        "project(memory, lengths=lengths)",
        "project(memory)",
        "cached decoding",
        LINEAR,
    ),
)
