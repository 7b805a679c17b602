"""A model of ours as a specification of CTranslate2: which option is which, and which weight goes where."""

from typing import Any

import numpy as np
from jaxtyping import Float

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError
from flax_transformer.interop.state_dict import Weights
from flax_transformer.nn.positions import in_halves, sinusoidal_table

_ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "gelu_tanh": "GELUTanh", "silu": "SWISH"}


def check_supported(config: ModelConfig) -> None:
    """
    Raises:
        UserError: CTranslate2 has no such model; the message says what to train with instead.
    """
    if config.architecture != "seq2seq":
        raise UserError(
            "expected a seq2seq model, which CTranslate2 generates with, got a classifier; export it with --format onnx"
        )
    if not config.mixes_by_attention:
        raise UserError(
            f"expected attention, which is what CTranslate2 computes, got {config.named_mixers}; train with "
            "--model.mixer attention and no --model.encoder-mixer, or export it with --format torch"
        )
    if config.embedding_width:
        raise UserError(
            f"expected embeddings of the model's width, which is what CTranslate2 reads, got embedding_width="
            f"{config.embedding_width}; train without --model.embedding-width"
        )
    if config.smeared_keys:
        raise UserError(
            "expected keys of one token each, which is what CTranslate2 attends to, got smeared_keys=True; train with "
            "--model.no-smeared-keys, or export it with --format onnx"
        )
    if config.relative_buckets and config.positions != "none":
        raise UserError(
            f"expected no positions beside a relative bias, since CTranslate2 leaves them out, got positions="
            f"{config.positions!r}; train with --model.positions none, or without --model.relative-buckets"
        )


def make_spec(config: ModelConfig, weights: Weights) -> Any:
    """A ``ctranslate2.specs.TransformerSpec`` with all weights in place, yet without vocabularies.

    Args:
        weights: in PyTorch's names and layouts.

    Raises:
        UserError: CTranslate2 has no such model.
    """
    from ctranslate2.specs import TransformerDecoderSpec, TransformerEncoderSpec, TransformerSpec

    check_supported(config)
    # Copies: quantizing works in place.
    weights = {name: np.array(weight, np.float32) for name, weight in weights.items()}
    options = _options(config)
    encoder = TransformerEncoderSpec(config.num_encoder_layers, config.num_heads, **options)
    decoder = TransformerDecoderSpec(config.num_decoder_layers, config.num_heads, **options)
    _fill_stack(encoder, config, weights, "encoder")
    _fill_stack(decoder, config, weights, "decoder")
    _fill_embedding(encoder, encoder.embeddings[0], config, weights, "source")
    _fill_embedding(decoder, decoder.embeddings, config, weights, "target")
    _fill_projection(decoder, config, weights)
    spec: Any = TransformerSpec(encoder, decoder)
    spec.config.add_attribute("layer_norm_epsilon", config.norm_eps)
    return spec


def _options(config: ModelConfig) -> dict[str, Any]:
    """What both stacks are made with. Its ``pre_norm`` also decides about the last norm, so it is set afterwards."""
    from ctranslate2.specs import common_spec

    rope = {"rotary_dim": config.head_dim, "rotary_interleave": False} if config.positions == "rope" else {}
    return {
        "pre_norm": True,
        "no_final_norm": not config.final_norm,
        "activation": common_spec.Activation[_ACTIVATIONS[config.activation]],
        "layernorm_embedding": config.embedding_norm,
        "relative_attention_bias": config.relative_buckets > 0,
        "ffn_glu": config.gated,
        "rms_norm": config.norm == "rms",
        "head_dim": config.head_width,
        **rope,
    }


def _fill_stack(spec: Any, config: ModelConfig, weights: Weights, side: str) -> None:
    spec.pre_norm = config.norm_first
    for index, layer in enumerate(spec.layer):
        name = f"{side}.layers.{index}"
        _fill_attention(layer.self_attention, config, weights, f"{name}.self_attention", fused=3)
        if side == "decoder":
            _fill_attention(layer.attention, config, weights, f"{name}.cross_attention", fused=1)
        if config.relative_buckets:
            layer.self_attention.relative_attention_bias = weights[f"{side}.relative_bias.weight"]
            layer.self_attention.relative_attention_max_distance = np.int32(config.relative_max_distance)
        _fill_feed_forward(layer.ffn, config, weights, f"{name}.feed_forward")
    if config.final_norm:
        _fill_norm(spec.layer_norm, weights, f"{side}.norm")


def _fill_attention(spec: Any, config: ModelConfig, weights: Weights, name: str, *, fused: int) -> None:
    """Self-attention has query, key and value in one matrix; attention to the memory has key and value in one."""
    inputs = [f"{name}.{part}" for part in ("query", "key", "value")]
    _fill_linear(spec.linear[0], weights, *inputs[:fused])
    if inputs[fused:]:
        _fill_linear(spec.linear[1], weights, *inputs[fused:])
    _fill_linear(spec.linear[-1], weights, f"{name}.output")
    _fill_norm(spec.layer_norm, weights, f"{name}_residual.norm")
    spec.queries_scale = config.head_dim**-0.5 if config.scale_attention else 1.0


def _fill_feed_forward(spec: Any, config: ModelConfig, weights: Weights, name: str) -> None:
    if config.gated:
        _fill_linear(spec.linear_0, weights, f"{name}.gate_proj")
        _fill_linear(spec.linear_0_noact, weights, f"{name}.up_proj")
    else:
        _fill_linear(spec.linear_0, weights, f"{name}.up_proj")
    _fill_linear(spec.linear_1, weights, f"{name}.down_proj")
    _fill_norm(spec.layer_norm, weights, f"{name}_residual.norm")


def _fill_embedding(spec: Any, table: Any, config: ModelConfig, weights: Weights, side: str) -> None:
    shares = side == "target" and config.tie_embeddings in ("all", "inputs")
    table.weight = weights["source_table.weight" if shares else f"{side}_table.weight"]
    spec.scale_embeddings = config.scale_embeddings
    if hasattr(spec, "position_encodings"):
        spec.position_encodings.encodings = _positions(config, weights, f"{side}_embedding")
    if config.embedding_norm:
        _fill_norm(spec.layernorm_embedding, weights, f"{side}_embedding.norm")


def _positions(config: ModelConfig, weights: Weights, name: str) -> Float[np.ndarray, "max_length d_model"]:
    """What is added to the embeddings. Without a table CTranslate2 would add sinusoids of its own."""
    if config.positions == "learned":
        return weights[f"{name}.positions.table"][config.position_offset :]
    if config.positions == "none":
        return np.zeros((config.max_length, config.d_model), np.float32)
    table = sinusoidal_table(config.max_length, config.d_model)
    return (in_halves(table) if config.positions == "sinusoidal_halves" else table).astype(np.float32)


def _fill_projection(spec: Any, config: ModelConfig, weights: Weights) -> None:
    if config.tie_embeddings in ("all", "target"):
        spec.projection.weight = spec.embeddings.weight
    else:
        _fill_linear(spec.projection, weights, "projection")
    if config.logits_bias:
        bias = weights["logits_bias"]
        spec.projection.bias = bias + spec.projection.bias if spec.projection.has_bias() else bias
    if config.scale_logits:
        spec.scale_outputs = config.d_model**-0.5


def _fill_linear(spec: Any, weights: Weights, *names: str) -> None:
    """One linear map, or several of one input, whose outputs lie side by side."""
    spec.weight = np.concatenate([weights[f"{name}.weight"] for name in names])
    if f"{names[0]}.bias" in weights:
        spec.bias = np.concatenate([weights[f"{name}.bias"] for name in names])


def _fill_norm(spec: Any, weights: Weights, name: str) -> None:
    spec.gamma = weights[f"{name}.weight"]
    if hasattr(spec, "beta"):  # without it, it would be an RMS norm
        spec.beta = weights.get(f"{name}.bias", np.zeros_like(spec.gamma))
