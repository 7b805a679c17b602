"""The reference is proved against torch's own modules, and against BERT: the twins could be wrong together.

torch.nn means the opposite by its boolean masks, True = blocked; they are inverted here and nowhere else.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from twins import GRADIENT, LOSS, OPERATION, ROWS, SOURCE, SOURCE_LENGTHS, STACK, TARGET, TARGET_LENGTHS, small, ulps

from flax_transformer.config import ModelConfig, OptimizerConfig
from flax_transformer.intermediates import Recorder, recording
from torch_reference.nn import losses, models
from torch_reference.nn.attention import MultiHeadAttention
from torch_reference.nn.layers import Decoder, DecoderLayer, Encoder, EncoderLayer
from torch_reference.nn.masks import AttentionMask, causal_mask, padding_mask
from torch_reference.training import optim

DOUBLE = "float64"
# Rows that torch.nn can serve: without a real key it gives NaN.
LENGTHS = torch.tensor(np.maximum(SOURCE_LENGTHS, 2))
TARGET_LENGTHS_ = torch.tensor(np.maximum(TARGET_LENGTHS, 1))
BLOCKED_KEYS = ~padding_mask(LENGTHS, SOURCE)
BLOCKED_TARGETS = ~padding_mask(TARGET_LENGTHS_, TARGET)
BLOCKED_FUTURE = ~causal_mask(TARGET, TARGET)


def config_of(**changes: Any) -> ModelConfig:
    return small(DOUBLE, **changes)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def moved(module: nn.Module) -> nn.Module:
    """Biases and norms moved off 0 and 1, where a mistake in them could not show."""
    with torch.no_grad():
        for i, parameter in enumerate(module.parameters()):
            parameter += 0.1 * normal(*parameter.shape, seed=i)
    return module


# --- weights in torch.nn's names ---


def attention_in_torch(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Three projections -> one packed matrix."""
    packed = {
        f"in_proj_{kind}": torch.cat([weights[f"{prefix}{name}.{kind}"] for name in ("query", "key", "value")])
        for kind in ("weight", "bias")
    }
    return packed | {f"out_proj.{kind}": weights[f"{prefix}output.{kind}"] for kind in ("weight", "bias")}


def layer_in_torch(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An encoder or a decoder layer."""
    is_decoder = "cross_attention.query.weight" in weights
    attentions = {"self_attention": "self_attn", **({"cross_attention": "multihead_attn"} if is_decoder else {})}
    linears = {"feed_forward.up_proj": "linear1", "feed_forward.down_proj": "linear2"}
    residuals = [*(f"{name}_residual" for name in attentions), "feed_forward_residual"]
    norms = {f"{residual}.norm": f"norm{i}" for i, residual in enumerate(residuals, start=1)}
    converted = {}
    for ours, theirs in attentions.items():
        by_name = attention_in_torch(weights, f"{ours}.")
        converted |= {f"{theirs}.{name}": weight for name, weight in by_name.items()}
    for ours, theirs in (linears | norms).items():
        converted |= {f"{theirs}.{kind}": weights[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    return converted


def stack_in_torch(weights: Mapping[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    converted = {name: weight for name, weight in weights.items() if name.startswith("norm.")}
    for i in range(num_layers):
        prefix = f"layers.{i}."
        of_layer = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
        converted |= {f"{prefix}{name}": weight for name, weight in layer_in_torch(of_layer).items()}
    return converted


def torch_arguments(config: ModelConfig) -> dict[str, Any]:
    return {
        "d_model": config.d_model,
        "nhead": config.num_heads,
        "dim_feedforward": config.d_ff,
        "dropout": 0.0,
        "activation": config.activation,
        "norm_first": config.norm_first,
        "layer_norm_eps": config.norm_eps,
        "batch_first": True,
        "dtype": torch.float64,
    }


def check(ours: Tensor, theirs: Tensor, our_inputs: list[Tensor], their_inputs: list[Tensor], real: Tensor) -> None:
    """Outputs of the real tokens, and the gradients of all inputs by way of them."""
    assert ulps(ours[real], theirs[real]) <= STACK
    upstream = normal(*ours.shape, seed=9) * real[..., None]
    of_ours = torch.autograd.grad(ours, our_inputs, upstream)
    of_theirs = torch.autograd.grad(theirs, their_inputs, upstream)
    for gradient, expected in zip(of_ours, of_theirs, strict=True):
        assert ulps(gradient, expected) <= GRADIENT[DOUBLE]


# --- layers ---


def attention_pair() -> tuple[MultiHeadAttention, nn.MultiheadAttention]:
    config = config_of()
    ours = moved(MultiHeadAttention(config, is_self_attention=False))
    theirs = nn.MultiheadAttention(config.d_model, config.num_heads, batch_first=True, dtype=torch.float64)
    theirs.load_state_dict(attention_in_torch(ours.state_dict(), ""), strict=True)
    return ours, theirs


@pytest.mark.parametrize("masks", ["none", "ragged", "causal", "dense"])
def test_multi_head_attention(masks: str) -> None:
    ours, theirs = attention_pair()
    width = ours.config.d_model
    x, memory = normal(ROWS, TARGET, width), normal(ROWS, TARGET if masks == "causal" else SOURCE, width, seed=1)
    dense = normal(ROWS, 1, TARGET, SOURCE) > -0.5
    dense[..., 0] = True
    mask, blocked, padding = {
        "none": (AttentionMask(), None, None),
        "ragged": (AttentionMask(LENGTHS), None, BLOCKED_KEYS),
        "causal": (AttentionMask(causal=True), BLOCKED_FUTURE, None),
        "dense": (AttentionMask(dense=dense), ~dense.expand(-1, 3, -1, -1).reshape(-1, TARGET, SOURCE), None),
    }[masks]
    inputs = [x.requires_grad_(), memory.requires_grad_()]
    with recording(Recorder({id(module): name for name, module in ours.named_modules()})) as recorder:
        output = ours(x, ours.project(memory), mask)
    expected, weights = theirs(
        x, memory, memory, key_padding_mask=padding, attn_mask=blocked, average_attn_weights=False
    )
    assert ulps(recorder.values["weights"], weights) <= OPERATION
    check(output, expected, inputs, inputs, torch.ones(ROWS, TARGET, dtype=torch.bool))
    if blocked is not None:  # torch's own meaning of True
        mistaken, _ = theirs(x, memory, memory, attn_mask=~blocked & ~torch.eye(*blocked.shape[-2:]).bool())
        assert not ulps(output, mistaken) < 1e5


def test_a_projection_that_is_not_the_packed_one_is_seen() -> None:
    ours, theirs = attention_pair()
    x = normal(ROWS, TARGET, ours.config.d_model)
    output = ours(x, ours.project(x), AttentionMask())
    weights = attention_in_torch(ours.state_dict(), "")
    query, key, value = weights["in_proj_weight"].chunk(3)
    for mistake in ((query.T, key, value), (key, query, value.T), (query, value, key)):
        theirs.load_state_dict({**weights, "in_proj_weight": torch.cat(mistake)}, strict=True)
        assert ulps(output, theirs(x, x, x)[0]) > 1e5


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layers(norm_first: bool, activation: str) -> None:
    config = config_of(norm_first=norm_first, activation=activation)
    ours = moved(EncoderLayer(config))
    theirs = nn.TransformerEncoderLayer(**torch_arguments(config))
    theirs.load_state_dict(layer_in_torch(ours.state_dict()), strict=True)
    x = normal(ROWS, SOURCE, config.d_model).requires_grad_()
    output, expected = ours(x, AttentionMask(LENGTHS)), theirs(x, src_key_padding_mask=BLOCKED_KEYS)
    check(output, expected, [x, *ours.feed_forward.parameters()], [x, *their_feed_forward(theirs)], ~BLOCKED_KEYS)
    without_mask = theirs(x)
    assert ulps(output[~BLOCKED_KEYS], without_mask[~BLOCKED_KEYS]) > 1e5


def their_feed_forward(layer: nn.Module) -> list[Tensor]:
    return [*layer.linear1.parameters(), *layer.linear2.parameters()]


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_decoder_layers(norm_first: bool, activation: str) -> None:
    config = config_of(norm_first=norm_first, activation=activation)
    ours = moved(DecoderLayer(config))
    theirs = nn.TransformerDecoderLayer(**torch_arguments(config))
    theirs.load_state_dict(layer_in_torch(ours.state_dict()), strict=True)
    x, memory = normal(ROWS, TARGET, config.d_model), normal(ROWS, SOURCE, config.d_model, seed=1)
    inputs = [x.requires_grad_(), memory.requires_grad_()]
    mask = AttentionMask(TARGET_LENGTHS_, causal=True)
    output, _ = ours(x, ours.cross_attention.project(memory), mask, AttentionMask(LENGTHS))
    masks = {"tgt_key_padding_mask": BLOCKED_TARGETS, "memory_key_padding_mask": BLOCKED_KEYS}
    expected = theirs(x, memory, tgt_mask=BLOCKED_FUTURE, **masks)
    our_inputs = [*inputs, *ours.feed_forward.parameters()]
    check(output, expected, our_inputs, [*inputs, *their_feed_forward(theirs)], ~BLOCKED_TARGETS)
    real = ~BLOCKED_TARGETS
    assert ulps(output[real], theirs(x, memory, **masks)[real]) > 1e5  # no causal mask
    no_memory_mask = theirs(x, memory, tgt_mask=BLOCKED_FUTURE, tgt_key_padding_mask=BLOCKED_TARGETS)
    assert ulps(output[real], no_memory_mask[real]) > 1e5


# With pre-LN, or an odd number of heads, its fast path cannot be taken: so much the better.
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("norm_first", [True, False])
def test_the_whole_transformer(norm_first: bool) -> None:
    """nn.Transformer always has a norm behind each stack, in post-LN too."""
    # torch warns of an odd number of heads: its nested tensors cannot serve one.
    config = config_of(norm_first=norm_first, final_norm=True, num_encoder_layers=2, num_decoder_layers=3, num_heads=2)
    encoder, decoder = moved(Encoder(config)), moved(Decoder(config))
    theirs = nn.Transformer(num_encoder_layers=2, num_decoder_layers=3, **torch_arguments(config))
    theirs.encoder.load_state_dict(stack_in_torch(encoder.state_dict(), 2), strict=True)
    theirs.decoder.load_state_dict(stack_in_torch(decoder.state_dict(), 3), strict=True)
    source, target = normal(ROWS, SOURCE, config.d_model), normal(ROWS, TARGET, config.d_model, seed=1)
    inputs = [source.requires_grad_(), target.requires_grad_()]

    memory_mask = AttentionMask(LENGTHS)
    memory = encoder(source, memory_mask)
    output = decoder(target, memory, AttentionMask(TARGET_LENGTHS_, causal=True), memory_mask)
    expected = theirs(
        source,
        target,
        tgt_mask=BLOCKED_FUTURE,
        src_key_padding_mask=BLOCKED_KEYS,
        tgt_key_padding_mask=BLOCKED_TARGETS,
        memory_key_padding_mask=BLOCKED_KEYS,
    )
    check(output, expected, inputs, inputs, ~BLOCKED_TARGETS)
    theirs.encoder.norm = None
    theirs.eval()
    without_final_norm = theirs(source, target, tgt_mask=BLOCKED_FUTURE, src_key_padding_mask=BLOCKED_KEYS)
    assert ulps(output[~BLOCKED_TARGETS], without_final_norm[~BLOCKED_TARGETS]) > 1e5


def test_the_encoder_of_the_classifier_is_that_of_bert() -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers, to compare with its BertModel")
    config = config_of(
        architecture="classifier", norm_first=False, final_norm=False, activation="gelu", norm_eps=1e-12, d_model=12
    )
    ours = moved(models.create_model(config, seed=0).encoder)
    bert = transformers.BertModel(
        transformers.BertConfig(
            hidden_size=config.d_model,
            num_attention_heads=config.num_heads,
            intermediate_size=config.d_ff,
            num_hidden_layers=config.num_encoder_layers,
            vocab_size=config.source_vocab_size,
            max_position_embeddings=SOURCE,
            hidden_act="gelu",
            attn_implementation="eager",
        ),
        add_pooling_layer=False,
    )
    bert = bert.double().eval()
    names = {
        "attention.self.query": "self_attention.query",
        "attention.self.key": "self_attention.key",
        "attention.self.value": "self_attention.value",
        "attention.output.dense": "self_attention.output",
        "attention.output.LayerNorm": "self_attention_residual.norm",
        "intermediate.dense": "feed_forward.up_proj",
        "output.dense": "feed_forward.down_proj",
        "output.LayerNorm": "feed_forward_residual.norm",
    }
    weights = {
        f"layer.{i}.{theirs}.{kind}": ours.state_dict()[f"layers.{i}.{name}.{kind}"]
        for i in range(config.num_encoder_layers)
        for theirs, name in names.items()
        for kind in ("weight", "bias")
    }
    bert.encoder.load_state_dict(weights, strict=True)
    ids = torch.randint(config.source_vocab_size, (ROWS, SOURCE), generator=torch.Generator().manual_seed(0))
    real = padding_mask(LENGTHS, SOURCE)
    with torch.no_grad():
        embedded = bert.embeddings(ids)
        expected = bert(ids, attention_mask=real.long()).last_hidden_state
        output = ours(embedded, AttentionMask(LENGTHS))
        assert ulps(output[real], expected[real]) <= STACK
        without_mask = bert(ids).last_hidden_state
        assert ulps(output[real], without_mask[real]) > 1e5
        for norm in (module for module in ours.modules() if isinstance(module, nn.LayerNorm)):
            norm.eps = 1e-5
        assert ulps(ours(embedded, AttentionMask(LENGTHS))[real], expected[real]) > 1e5


# --- loss ---


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy(label_smoothing: float) -> None:
    logits = normal(ROWS, TARGET, 37).requires_grad_()
    labels = torch.randint(37, (ROWS, TARGET), generator=torch.Generator().manual_seed(0))
    real = padding_mask(torch.tensor(TARGET_LENGTHS), TARGET)
    loss_sum, count = losses.cross_entropy(logits, labels, real, label_smoothing)
    oracle = nn.CrossEntropyLoss(ignore_index=-100, label_smoothing=label_smoothing)
    expected = oracle(logits.flatten(0, 1), labels.masked_fill(~real, -100).flatten())
    assert ulps(loss_sum / count, expected) <= LOSS
    gradient, expected_gradient = (torch.autograd.grad(loss, logits)[0] for loss in (loss_sum / count, expected))
    assert ulps(gradient, expected_gradient) <= GRADIENT[DOUBLE]
    assert ulps(loss_sum / real.numel(), expected) > 1e5


# --- optimizers: the reference decays matrices only, so torch's own get the same two groups ---


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(normal(13, 7)), nn.Parameter(normal(11, seed=1))]


def ours_and_theirs(config: OptimizerConfig, theirs_of: Any, **arguments: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters after twenty steps of both, with the same gradients."""
    total_steps, warmup = 31, config.warmup_steps
    our_parameters, their_parameters = parameters(), parameters()
    optimizer = optim.create_optimizer(config, nn.ParameterList(our_parameters))
    scheduler = optim.schedule(optimizer, config, total_steps)
    matrix, vector = their_parameters
    groups = [{"params": [matrix]}, {"params": [vector], "weight_decay": 0.0}]
    oracle = theirs_of(groups, lr=config.learning_rate, **arguments)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total_steps - warmup)))

    oracle_scheduler = torch.optim.lr_scheduler.LambdaLR(oracle, factor)
    for step in range(20):
        for i, (ours, theirs) in enumerate(zip(our_parameters, their_parameters, strict=True)):
            ours.grad = normal(*ours.shape, seed=100 * step + i)
            theirs.grad = ours.grad.clone()
        if config.max_grad_norm:
            optim.clip_by_global_norm(our_parameters, config.max_grad_norm)
            nn.utils.clip_grad_norm_(their_parameters, config.max_grad_norm)
        for stepped in (optimizer, scheduler, oracle, oracle_scheduler):
            stepped.step()
    return list(our_parameters), list(their_parameters)


OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_optimizers_take_the_defaults_of_torch(name: Any) -> None:
    """The config's defaults, but for the decay of biases, are those that torch's classes have."""
    config = OptimizerConfig(
        name=name, weight_decay={"adam": 0.0, "adamw": 0.01}[name], warmup_steps=3, max_grad_norm=0.0
    )
    for ours, theirs in zip(*ours_and_theirs(config, OPTIMIZERS[name]), strict=True):
        assert ulps(ours, theirs) <= OPERATION


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_optimizers_with_decay_and_clipping(name: Any) -> None:
    config = OptimizerConfig(
        name=name,
        weight_decay=0.1,
        warmup_steps=3,
        max_grad_norm=0.5,
        beta1=0.8,
        beta2=0.98,
        eps=1e-3,
        learning_rate=1e-2,
    )
    arguments: dict[str, Any] = {"weight_decay": 0.1, "betas": (0.8, 0.98), "eps": 1e-3}
    for ours, theirs in zip(*ours_and_theirs(config, OPTIMIZERS[name], **arguments), strict=True):
        assert ulps(ours, theirs) <= OPERATION
    other = {"adam": torch.optim.AdamW, "adamw": torch.optim.Adam}[name]
    mistakes = [(other, {}), (OPTIMIZERS[name], {"eps": 1e-8}), (OPTIMIZERS[name], {"betas": (0.8, 0.999)})]
    for theirs_of, mistake in mistakes:
        our_matrix, their_matrix = (side[0] for side in ours_and_theirs(config, theirs_of, **{**arguments, **mistake}))
        assert ulps(our_matrix, their_matrix) > 1e5
