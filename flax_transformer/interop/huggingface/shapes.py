"""The weights that a config asks for, and their shapes, in PyTorch's names and layouts."""

from collections.abc import Iterator

from flax_transformer.config import ModelConfig

Shapes = dict[str, tuple[int, ...]]


def weight_shapes(config: ModelConfig) -> Shapes:
    """Name -> shape of each weight of the model.

    Example:
        >>> config = ModelConfig(architecture="classifier", d_model=8, num_classes=3)
        >>> weight_shapes(config)["head.weight"]
        (3, 8)
    """
    return dict(_of_classifier(config) if config.architecture == "classifier" else _of_seq2seq(config))


_Named = Iterator[tuple[str, tuple[int, ...]]]


def _of_classifier(config: ModelConfig) -> _Named:
    yield "source_table.weight", (config.source_vocab_size, config.embedding_dim)
    yield from _embedding("source_embedding", config)
    yield from _stack("encoder", config.encoder_config, config.num_encoder_layers)
    if config.head_hidden != "none":
        yield from _linear("hidden", config.d_model, config.d_model, config)
    if config.num_classes:
        yield from _linear("head", config.d_model, config.num_classes, config)


def _of_seq2seq(config: ModelConfig) -> _Named:
    yield "source_table.weight", (config.source_vocab_size, config.embedding_dim)
    if config.tie_embeddings in ("target", "none"):
        yield "target_table.weight", (config.target_vocab_size, config.embedding_dim)
    for side in ("source", "target"):
        yield from _embedding(f"{side}_embedding", config)
    yield from _stack("encoder", config.encoder_config, config.num_encoder_layers)
    yield from _stack("decoder", config, config.num_decoder_layers)
    if config.tie_embeddings in ("inputs", "none"):
        yield from _linear("projection", config.d_model, config.target_vocab_size, config)
    if config.logits_bias:
        yield "logits_bias", (config.target_vocab_size,)


def _embedding(name: str, config: ModelConfig) -> _Named:
    width = config.embedding_dim
    if config.positions == "learned":
        yield f"{name}.positions.table", (config.max_length + config.position_offset, width)
    if config.token_types:
        yield f"{name}.types.weight", (config.token_types, width)
    if config.embedding_norm:
        yield from _norm(f"{name}.norm", width, config)
    if config.embedding_width:
        yield from _linear(f"{name}.projection", width, config.d_model, config)


def _stack(name: str, config: ModelConfig, layers: int) -> _Named:
    if config.relative_buckets:
        yield f"{name}.relative_bias.weight", (config.relative_buckets, config.num_heads)
    attentions = ("self_attention",) if name == "encoder" else ("self_attention", "cross_attention")
    for layer in (f"{name}.layers.{number}" for number in range(layers)):
        for attention in attentions:
            if config.mixer == "lstm" and attention == "self_attention":
                yield from _lstm(f"{layer}.{attention}", config, two_sided=name == "encoder")
            else:
                yield from _attention(f"{layer}.{attention}", config)
        yield from _feed_forward(f"{layer}.feed_forward", config)
        for sublayer in (*attentions, "feed_forward"):
            yield from _norm(f"{layer}.{sublayer}_residual.norm", config.d_model, config)
    if config.final_norm:
        yield from _norm(f"{name}.norm", config.d_model, config)


def _attention(name: str, config: ModelConfig) -> _Named:
    inner = config.num_heads * config.head_dim
    for part in ("query", "key", "value"):
        yield from _linear(f"{name}.{part}", config.d_model, inner, config)
    yield from _linear(f"{name}.output", inner, config.d_model, config)
    if config.smeared_keys and name.endswith("cross_attention"):
        yield f"{name}.smear", (config.num_heads,)


def _lstm(name: str, config: ModelConfig, two_sided: bool) -> _Named:
    width = config.d_model // 2 if two_sided else config.d_model
    for direction in ("left_to_right", "right_to_left") if two_sided else ("left_to_right",):
        yield from _linear(f"{name}.{direction}.input_proj", config.d_model, 4 * width, config)
        yield f"{name}.{direction}.recurrent_proj.weight", (4 * width, width)


def _feed_forward(name: str, config: ModelConfig) -> _Named:
    for part in ("gate_proj", "up_proj") if config.gated else ("up_proj",):
        yield from _linear(f"{name}.{part}", config.d_model, config.d_ff, config)
    yield from _linear(f"{name}.down_proj", config.d_ff, config.d_model, config)


def _linear(name: str, inputs: int, outputs: int, config: ModelConfig) -> _Named:
    yield f"{name}.weight", (outputs, inputs)
    if config.bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int, config: ModelConfig) -> _Named:
    yield f"{name}.weight", (width,)
    if config.bias and config.norm == "layer":
        yield f"{name}.bias", (width,)
