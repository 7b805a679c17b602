"""Mutants of training: loss, gradients, optimizer, step and dropout; see :mod:`mutants`."""

from mutants import CLASSIFIER, MASKED, RELU, Mutant

from flax_transformer.config import OptimizerConfig

_T, _F = "torch_reference", "flax_transformer"
_PREDICTIONS = "batch.source_lengths)\n            return Predictions(logits, batch.labels, "
TRAINING_MUTANTS = (
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
        f"{_T}/training/step.py",
        f"{_PREDICTIONS}padding_mask(batch.counts, batch.labels.shape[1]))",
        f"{_PREDICTIONS}torch.ones_like(batch.labels, dtype=torch.bool))",
        "loss",
        MASKED,
    ),
    Mutant(
        "filler rows count",
        f"{_T}/training/step.py",
        f"{_PREDICTIONS}batch.source_lengths > 0)",
        f"{_PREDICTIONS}batch.source_lengths >= 0)",
        "loss",
        CLASSIFIER,
    ),
    # Divergence of two passes
    Mutant(
        "divergence in one direction alone",
        f"{_T}/nn/losses.py",
        "((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=-1) / 2",
        "(log_p.exp() * (log_p - log_q)).sum(dim=-1)",
        "loss",
    ),
    Mutant(
        "divergence not halved",
        f"{_T}/nn/losses.py",
        "(log_p - log_q)).sum(dim=-1) / 2",
        "(log_p - log_q)).sum(dim=-1)",
        "loss",
    ),
    Mutant(
        "divergence of padding",
        f"{_T}/nn/losses.py",
        "torch.where(real[::2], divergences, 0).sum()",
        "divergences.sum()",
        "loss",
    ),
    Mutant(
        "the passes of a row are not side by side",
        f"{_T}/training/step.py",
        "rows.repeat_interleave(2, dim=0)",
        "torch.cat([rows, rows])",
        "dropout",
        training={"r_drop": 1.0},
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
        "decay of biases and norms",
        f"{_T}/training/matrices.py",
        "parameter.ndim > 1",
        "parameter.ndim > 0",
        "optimizer",
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
)
