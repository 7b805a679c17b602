"""What a step comes to, counted from the config: its tokens, and the floating-point operations of its matrix products.

A multiply-add is two operations. Norms, softmax and the optimizer are left out, as the usual utilisation figures leave
them out (Chowdhery et al., 2022, PaLM, appendix B): below 5% of a step at the widths of the presets. Masked scores are
counted, since plain attention computes them; embedding lookups are not products. The running sums of linear attention
over its chunks are additions, and left out too.
"""

from flax_transformer.config import ModelConfig, TrainConfig
from flax_transformer.data.masking import count_predicted
from flax_transformer.nn.linear_attention import CHUNK


def tokens_per_step(config: TrainConfig) -> int:
    """Tokens that the encoder and the decoder read of a batch without padding."""
    return config.batch.size * (config.batch.max_source_length + _target_length(config))


def _target_length(config: TrainConfig) -> int:
    """Of the decoder's input; 0 where there is none."""
    return config.batch.max_target_length - 1 if config.model.architecture == "seq2seq" else 0


def forward_flops(config: TrainConfig) -> int:
    """Of the forward pass over one batch without padding."""
    model, sizes = config.model, config.batch
    source = sizes.max_source_length
    row = model.num_encoder_layers * (_mixer(model.encoder_config, source, causal=False) + _feed_forward(model, source))
    if model.architecture == "classifier":
        hidden = model.d_model if model.head_hidden != "none" else 0
        return sizes.size * (row + 2 * model.d_model * (hidden + model.num_classes))
    if model.architecture == "masked":
        return sizes.size * (row + 2 * count_predicted(source) * model.d_model * model.source_vocab_size)
    target = _target_length(config)
    attention = _mixer(model, target, causal=True) + _cross_attention(model, target, source)
    row += model.num_decoder_layers * (attention + _feed_forward(model, target))
    return sizes.size * (row + 2 * target * model.d_model * model.target_vocab_size)


def train_flops(config: TrainConfig) -> int:
    """Of a training step: each product of the forward pass has one for each of its operands in the backward pass."""
    return 3 * forward_flops(config)


def _mixer(model: ModelConfig, tokens: int, causal: bool) -> int:
    """Of what mixes the tokens of one sequence."""
    if model.mixer == "lstm":
        # One direction of the whole width; in an encoder two of half the width.
        return 2 * tokens * model.d_model**2 * (8 if causal else 6)
    if model.mixer == "linear" and causal:
        # Within a chunk all pairs, as in attention; and the sums are read once.
        width, size = model.num_heads * model.head_dim, min(CHUNK, tokens)
        padded = tokens + -tokens % size
        return _linear_attention(model, padded, padded) + 2 * (2 * padded * size * width)
    return _cross_attention(model, tokens, tokens)


def _cross_attention(model: ModelConfig, queries: int, keys: int) -> int:
    if model.mixer == "linear":
        return _linear_attention(model, queries, keys)
    width = model.num_heads * model.head_dim
    return _projections(model, queries, keys) + 2 * (2 * queries * keys * width)


def _linear_attention(model: ModelConfig, queries: int, keys: int) -> int:
    """Each key is summed up, and each query reads the sums: of products, and of keys."""
    width = model.num_heads * model.head_dim
    return _projections(model, queries, keys) + 2 * width * (keys * model.head_dim + queries * (model.head_dim + 1))


def _projections(model: ModelConfig, queries: int, keys: int) -> int:
    return 2 * model.d_model * model.num_heads * model.head_dim * (2 * queries + 2 * keys)


def _feed_forward(model: ModelConfig, tokens: int) -> int:
    return (3 if model.gated else 2) * (2 * tokens * model.d_model * model.d_ff)
