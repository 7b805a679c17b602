"""Mutants: each is one line of one twin, and names the check that is to notice it.

They are the traps that people fall into when they port a Transformer between frameworks. A suite that misses one of
them would let it through in earnest.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from mutation import mutated

from flax_transformer.config import ModelConfig, OptimizerConfig
from flax_transformer.parity.cases import Case, Sizes, make_case
from flax_transformer.parity.checks import Result, check_suite
from flax_transformer.parity.pair import Pair

TINY = ModelConfig(
    d_model=16,
    num_heads=2,
    d_ff=32,
    num_encoder_layers=1,
    num_decoder_layers=1,
    source_vocab_size=31,
    target_vocab_size=31,
    max_length=16,
)
# What a mutant needs beyond the tiny default model for its mistake to be able to show.
ROPE = {"positions": "rope"}
RELU = {"activation": "relu", "norm_first": False}
UNTIED = {"tie_embeddings": "none", "positions": "learned", "num_encoder_layers": 2}
CLASSIFIER = {"architecture": "classifier"}
MASKED = {"architecture": "masked"}


@dataclass(frozen=True)
class Mutant:
    """One mistake.

    Args:
        name: what is wrong, in a few words.
        file: the module it is planted in, which also says on which side.
        old: stands exactly once in that file.
        new: what takes its place.
        check: must notice it.
        model: fields of the tiny model that differ from its defaults.
        training: fields of the training config.
        dtype: the precision in which it is to be noticed.
    """

    name: str
    file: str
    old: str
    new: str
    check: str
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float64"

    @property
    def side(self) -> str:
        return "flax" if self.file.startswith("flax_transformer") else "torch"

    def case(self, seed: int = 0) -> Case:
        param_dtype = "float64" if self.dtype == "float64" else "float32"
        model = dataclasses.replace(TINY, **self.model, dtype=self.dtype, param_dtype=param_dtype)
        return make_case(model, seed, Sizes(rows=4, source=7, target=6), **self.training)


def measure(mutant: Mutant, clean: Pair) -> list[Result]:
    """What the mutant's check says of it. ``clean``, the unharmed pair of the mutant's case, gives the noise floors."""
    pair = clean.before_a_change_of(mutant.side)
    with mutated(mutant.file, mutant.old, mutant.new):
        return check_suite(pair)[mutant.check](pair)


_T, _F = "torch_reference", "flax_transformer"
MUTANTS = (
    # Masks
    Mutant(
        "causal mask missing",
        f"{_T}/nn/models.py",
        "AttentionMask(target_lengths, causal=True, query",
        "AttentionMask(target_lengths, query",
        "reachability",
    ),
    Mutant("causal mask transposed", f"{_T}/nn/masks.py", "<= query_positions[", ">= query_positions[", "masks"),
    Mutant(
        "causal mask hides the token itself", f"{_T}/nn/masks.py", "<= query_positions[", "< query_positions[", "masks"
    ),
    Mutant(
        "causal mask shows the next token",
        f"{_T}/nn/masks.py",
        "<= query_positions[",
        "<= 1 + query_positions[",
        "masks",
    ),
    Mutant(
        "causal mask on the encoder",
        f"{_T}/nn/models.py",
        "AttentionMask(source_lengths, query_segments=source_segments",
        "AttentionMask(source_lengths, True, query_segments=source_segments",
        "reachability",
    ),
    Mutant(
        "causal mask on cross-attention",
        f"{_T}/nn/models.py",
        "memory_mask = AttentionMask(source_lengths, query",
        "memory_mask = AttentionMask(source_lengths, True, query",
        "reachability",
    ),
    Mutant("padding mask one token too long", f"{_T}/nn/masks.py", "device) < lengths", "device) <= lengths", "masks"),
    Mutant(
        "padding leaks into the encoder",
        f"{_T}/nn/models.py",
        "AttentionMask(source_lengths, query_segments=source_segments",
        "AttentionMask(None, query_segments=source_segments",
        "reachability",
    ),
    Mutant(
        "padding leaks into cross-attention",
        f"{_T}/nn/models.py",
        "memory_mask = AttentionMask(source_lengths, query",
        "memory_mask = AttentionMask(None, query",
        "reachability",
    ),
    Mutant(
        "padding leaks into the decoder",
        f"{_T}/nn/models.py",
        "AttentionMask(target_lengths, causal",
        "AttentionMask(None, causal",
        "reachability",
    ),
    Mutant("masks joined by or", f"{_T}/nn/masks.py", "torch.logical_and, parts", "torch.logical_or, parts", "masks"),
    Mutant(
        "causal mask forgets the offset",
        f"{_T}/nn/masks.py",
        "query_offset + torch",
        "0 * query_offset + torch",
        "masks",
    ),
    Mutant(
        "row without keys attends to all",
        f"{_T}/nn/attention.py",
        "return torch.where(allowed, weights, 0)",
        "return weights",
        "reachability",
    ),
    Mutant(
        "mask inverted: True = blocked",
        f"{_T}/nn/attention.py",
        "torch.where(allowed, scores,",
        "torch.where(~allowed, scores,",
        "reachability",
    ),
    # Positions
    Mutant(
        "sinusoids with a doubled exponent",
        f"{_T}/nn/positions.py",
        "(-np.arange(0, d_model, 2) / d_model)",
        "(-2 * np.arange(0, d_model, 2) / d_model)",
        "positions",
    ),
    Mutant(
        "sinusoids with denominator d - 1",
        f"{_T}/nn/positions.py",
        "(-np.arange(0, d_model, 2) / d_model)",
        "(-np.arange(0, d_model, 2) / (d_model - 1))",
        "positions",
    ),
    Mutant(
        "sines and cosines in halves",
        f"{_F}/nn/positions.py",
        "columns % 2 == 0",
        "columns < d_model // 2",
        "positions",
    ),
    Mutant(
        "positions counted from 1",
        f"{_F}/nn/positions.py",
        "positions = np.arange(length, dtype=np.float64)",
        "positions = 1 + np.arange(length, dtype=np.float64)",
        "positions",
    ),
    Mutant(
        "sinusoids from float32 angles",
        f"{_F}/nn/positions.py",
        "angles = positions * frequencies",
        "angles = (positions * frequencies).astype(np.float32)",
        "positions",
    ),
    Mutant(
        "position missing on the target",
        f"{_T}/nn/models.py",
        "x = self.target_embedding(self._target_table, target, segments=target_segments)",
        "x = self.target_embedding.dropout(self._target_table(target) * self.target_embedding.scale)",
        "embeddings",
    ),
    Mutant(
        "rope on neighbouring pairs",
        f"{_T}/nn/positions.py",
        "x.to(dtype).chunk(2, dim=-1)",
        "x.to(dtype)[..., 0::2], x.to(dtype)[..., 1::2]",
        "attention",
        ROPE,
    ),
    Mutant(
        "rope turns the other way",
        f"{_T}/nn/positions.py",
        "[first * cos - second * sin, second * cos + first * sin]",
        "[first * cos + second * sin, second * cos - first * sin]",
        "attention",
        ROPE,
    ),
    Mutant("rope on cross-attention", f"{_T}/nn/attention.py", "= is_self_attention and ", "= ", "attention", ROPE),
    Mutant(
        "rope forgets the offset",
        f"{_T}/nn/positions.py",
        "table[:, offset : offset + x.shape[1], None]",
        "table[:, : x.shape[1], None]",
        "cached decoding",
        ROPE,
    ),
    # Embeddings
    Mutant(
        "embeddings not scaled by sqrt(d)",
        f"{_T}/nn/models.py",
        "config.d_model**0.5 if config.scale_embeddings else 1.0",
        "1.0",
        "embeddings",
    ),
    Mutant(
        "positions scaled too",
        f"{_T}/nn/models.py",
        "x = self.positions(x, offset, positions)",
        "x = self.positions(x / self.scale, offset) * self.scale",
        "embeddings",
    ),
    Mutant(
        "target read from the source's table",
        f"{_T}/nn/models.py",
        'return self.source_table if self.config.tie_embeddings in ("all", "inputs") else self.target_table',
        "return self.source_table",
        "embeddings",
        UNTIED,
    ),
    # Attention
    Mutant(
        "scores not scaled",
        f"{_T}/nn/attention.py",
        "config.head_dim**-0.5 if config.scale_attention else 1.0",
        "1.0",
        "attention",
    ),
    Mutant(
        "scores scaled by 1/d", f"{_T}/nn/attention.py", "config.head_dim**-0.5", "config.head_dim**-1.0", "attention"
    ),
    Mutant(
        "softmax over queries",
        f"{_T}/nn/attention.py",
        "finfo(dtype).min), dim=-1",
        "finfo(dtype).min), dim=-2",
        "attention",
    ),
    Mutant(
        "heads and head_dim swapped",
        f"{_T}/nn/attention.py",
        "self.config.num_heads, self.config.head_dim)",
        "self.config.head_dim, self.config.num_heads).transpose(2, 3)",
        "attention",
    ),
    Mutant(
        "softmax in float32",
        f"{_F}/nn/attention.py",
        "dtype = jnp.promote_types(query.dtype, jnp.float32)",
        "dtype = jnp.float32",
        "attention",
    ),
    Mutant(
        "square projections not transposed",
        f"{_F}/interop/state_dict.py",
        "rule.flax_name)] = np.ascontiguousarray(array.T) if rule.transposed else array",
        "rule.flax_name)] = array.T if rule.transposed and len(set(array.shape)) > 1 else array",
        "attention",
    ),
    Mutant(
        "biases left out",
        f"{_T}/nn/linear.py",
        "None if self.bias is None else self.bias.to(dtype)",
        "None",
        "attention",
    ),
    # Sublayers and stacks
    Mutant("norm with nnx's epsilon", f"{_F}/nn/linear.py", '"epsilon": config.norm_eps', '"epsilon": 1e-6', "norms"),
    Mutant(
        "norm with the one-pass variance",
        f"{_F}/nn/linear.py",
        '"use_fast_variance": False',
        '"use_fast_variance": True',
        "norms",
        dtype="float32",
    ),
    Mutant("GELU by tanh", f"{_F}/nn/layers.py", "approximate=False", "approximate=True", "sublayers"),
    Mutant(
        "pre-LN and post-LN swapped",
        f"{_T}/nn/layers.py",
        "self.norm_first = config.norm_first",
        "self.norm_first = not config.norm_first",
        "sublayers",
    ),
    Mutant(
        "residual taken behind the norm",
        f"{_T}/nn/layers.py",
        "x = x + self.dropout",
        "x = self.norm(x) + self.dropout",
        "sublayers",
    ),
    Mutant(
        "last norm left out",
        f"{_T}/nn/layers.py",
        "x = layer(x, mask)\n        return x if self.norm is None else self.norm(x)",
        "x = layer(x, mask)\n        return x",
        "stack",
    ),
    Mutant(
        "one layer used for all",
        f"{_T}/nn/layers.py",
        "            x = layer(x, mask)\n",
        "            x = self.layers[0](x, mask)\n",
        "sublayers",
        UNTIED,
    ),
    Mutant(
        "mean over padding",
        f"{_T}/nn/pooling.py",
        "return torch.where(real, x, 0).sum(dim=1) / lengths.clamp(min=1)[:, None].to(x.dtype)",
        "return x.mean(dim=1)",
        "stack",
        CLASSIFIER,
    ),
    Mutant(
        "sum of real tokens over all positions",
        f"{_T}/nn/pooling.py",
        "lengths.clamp(min=1)[:, None].to(x.dtype)",
        "x.shape[1]",
        "stack",
        CLASSIFIER,
    ),
    Mutant(
        "tied projection scaled",
        f"{_T}/nn/models.py",
        "return functional.linear(x.to(dtype), table.weight.to(dtype))",
        "return functional.linear(x.to(dtype), table.weight.to(dtype)) * config.d_model**-0.5",
        "logits",
    ),
    # Loss
    Mutant("smoothing over V - 1", f"{_T}/nn/losses.py", "/ logits.shape[-1] *", "/ (logits.shape[-1] - 1) *", "loss"),
    Mutant("smoothing over V - 2", f"{_T}/nn/losses.py", "/ logits.shape[-1] *", "/ (logits.shape[-1] - 2) *", "loss"),
    Mutant(
        "smoothing adds to the whole loss",
        f"{_T}/nn/losses.py",
        "-(1.0 - label_smoothing) * of_labels",
        "-of_labels",
        "loss",
    ),
    Mutant(
        "mean over padding in the loss",
        f"{_T}/nn/losses.py",
        "torch.where(real, losses, 0).sum(), real.sum()",
        "torch.where(real, losses, 0).sum(), torch.tensor(real.numel())",
        "loss",
    ),
    Mutant(
        "padding adds to the loss", f"{_T}/nn/losses.py", "torch.where(real, losses, 0).sum()", "losses.sum()", "loss"
    ),
    Mutant("target not shifted", f"{_T}/nn/losses.py", "target[:, 1:], (", "target[:, :-1], (", "loss"),
    Mutant(
        "length counts the begin token",
        f"{_T}/nn/losses.py",
        "(target_lengths - 1).clamp(min=0)",
        "target_lengths.clamp(max=target.shape[1] - 1)",
        "loss",
    ),
    Mutant(
        "masked tokens are those behind their places",
        f"{_T}/nn/models.py",
        "positions[:, :, None].long()",
        "((positions + 1) % source.shape[1])[:, :, None].long()",
        "logits",
        MASKED,
    ),
    Mutant(
        "masked tokens are the first of the row",
        f"{_F}/nn/models.py",
        "jnp.take_along_axis(memory, positions[:, :, None], axis=1)",
        "memory[:, : positions.shape[1]]",
        "logits",
        MASKED,
    ),
    Mutant(
        "bias of masked tokens scaled as their logits",
        f"{_T}/nn/models.py",
        "self.output_bias.to(logits.dtype)",
        "self.output_bias.to(logits.dtype) * self.config.d_model**-0.5",
        "logits",
        MASKED,
    ),
    Mutant(
        "loss of places without a masked token",
        f"{_T}/nn/losses.py",
        "padding_mask(counts, labels.shape[1])",
        "torch.ones_like(labels, dtype=torch.bool)",
        "loss",
        MASKED,
    ),
    Mutant(
        "filler rows count",
        f"{_T}/nn/losses.py",
        "real = source_lengths > 0",
        "real = source_lengths >= 0",
        "loss",
        CLASSIFIER,
    ),
    # Gradients
    Mutant(
        "relu with slope 1/2 at 0",
        f"{_F}/nn/layers.py",
        "jax.nn.relu",
        "lambda x: jax.numpy.maximum(x, 0)",
        "gradients",
        RELU,
    ),
    Mutant(
        "tied table gets no gradient from the logits",
        f"{_T}/nn/models.py",
        "table.weight.to(dtype))",
        "table.weight.detach().to(dtype))",
        "gradients",
    ),
    Mutant(
        "no gradient through attention weights",
        f"{_T}/nn/attention.py",
        "on_weights(attention_weights(query, key, mask, scale))",
        "on_weights(attention_weights(query, key, mask, scale)).detach()",
        "gradients",
    ),
    # Clipping and schedule
    Mutant(
        "clipping without torch's 1e-6",
        f"{_F}/training/optim.py",
        "(optax.tree.norm(updates) + 1e-6)",
        "optax.tree.norm(updates)",
        "clipping",
    ),
    Mutant(
        "clipping by value",
        f"{_T}/training/optim.py",
        "clip_grad_norm_(parameters",
        "clip_grad_value_(parameters",
        "clipping",
    ),
    Mutant(
        "clipping each tensor by itself",
        f"{_T}/training/optim.py",
        "torch.nn.utils.clip_grad_norm_(parameters, max_norm)",
        "[torch.nn.utils.clip_grad_norm_([p], max_norm) for p in parameters]",
        "clipping",
    ),
    Mutant(
        "clipping lengthens short gradients",
        f"{_F}/training/optim.py",
        "jnp.minimum(1.0, max_norm",
        "(max_norm",
        "clipping",
    ),
    Mutant(
        "warm-up starts at 0",
        f"{_T}/training/optim.py",
        "(step + 1) / max(warmup, 1), 1.0",
        "step / max(warmup, 1), 1.0",
        "schedule",
    ),
    Mutant(
        "decay one step late",
        f"{_T}/training/optim.py",
        "max(warmup, 1) / (step + 1)",
        "max(warmup, 1) / max(step, 1)",
        "schedule",
    ),
    Mutant(
        "cosine of half the angle",
        f"{_T}/training/optim.py",
        "math.cos(math.pi * progress)",
        "math.cos(0.5 * math.pi * progress)",
        "schedule",
        training={"optimizer": OptimizerConfig(schedule="cosine", warmup_steps=4)},
    ),
    # Optimizer
    Mutant(
        "bias correction in float32, as optax",
        f"{_F}/training/adam.py",
        "-jnp.expm1(count * math.log(beta))",
        "1 - jnp.asarray(beta, jnp.float32) ** count",
        "optimizer",
        dtype="float32",
    ),
    Mutant(
        "epsilon within the square root",
        f"{_F}/training/adam.py",
        "(jnp.sqrt(v) / correction2 + eps)",
        "jnp.sqrt(v / correction2**2 + eps)",
        "optimizer",
    ),
    Mutant(
        "second moment not corrected",
        f"{_F}/training/adam.py",
        "jnp.sqrt(_bias_correction(beta2, count))",
        "1.0",
        "optimizer",
    ),
    Mutant("first moment not corrected", f"{_F}/training/adam.py", "m / correction1 /", "m /", "optimizer"),
    Mutant(
        "steps counted from 2",
        f"{_F}/training/adam.py",
        "count = state.count + 1",
        "count = state.count + 2",
        "optimizer",
    ),
    Mutant(
        "L2 in place of decoupled decay",
        f"{_T}/training/optim.py",
        '"adamw": torch.optim.AdamW',
        '"adamw": torch.optim.Adam',
        "optimizer",
    ),
    Mutant(
        "decay of biases and norms", f"{_T}/training/optim.py", "parameter.ndim > 1", "parameter.ndim > 0", "optimizer"
    ),
    Mutant(
        "optax's default decay",
        f"{_F}/training/optim.py",
        "add_decayed_weights(config.weight_decay,",
        "add_decayed_weights(1e-4,",
        "optimizer",
    ),
    Mutant(
        "another beta2", f"{_T}/training/optim.py", "(config.beta1, config.beta2)", "(config.beta1, 0.98)", "optimizer"
    ),
    Mutant(
        "ascent in place of descent",
        f"{_T}/training/optim.py",
        "fused=fused)",
        "fused=fused, maximize=True)",
        "optimizer",
    ),
    # Training step
    Mutant(
        "gradient averaged over rows",
        f"{_T}/training/step.py",
        "gradient /= count",
        "gradient /= len(batch.source)",
        "step",
    ),
    Mutant(
        "mean of the parts' means",
        f"{_T}/training/step.py",
        "self.scaler.scale(loss_sum)",
        "self.scaler.scale(loss_sum / count.clamp(min=1))",
        "step",
        training={"gradient_accumulation_steps": 2},
    ),
    Mutant("gradients not zeroed", f"{_T}/training/step.py", "self.optimizer.zero_grad()", "pass", "step"),
    Mutant("scheduler not stepped", f"{_T}/training/step.py", "self.scheduler.step()", "pass", "10 steps"),
    # Dropout
    Mutant("kept elements not scaled up", f"{_T}/nn/dropout.py", "x * (1.0 / (1.0 - self.rate))", "x", "dropout"),
    Mutant(
        "mask inverted: True = dropped", f"{_T}/nn/dropout.py", "torch.where(keep,", "torch.where(~keep,", "dropout"
    ),
    Mutant(
        "one mask for all rows",
        f"{_F}/nn/dropout.py",
        "self.rate, x.shape)",
        "self.rate, (1, *x.shape[1:]))",
        "dropout",
    ),
    Mutant(
        "dropout missing on sublayers",
        f"{_T}/nn/layers.py",
        "x + self.dropout(output)",
        "x + output",
        "dropout",
    ),
    # Decoding
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
