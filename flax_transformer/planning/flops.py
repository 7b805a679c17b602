"""What a step comes to, counted from the config: its tokens, and the floating-point operations of its matrix products.

A multiply-add is two operations. Norms, softmax and the optimizer are left out, as the usual utilisation figures leave
them out (Chowdhery et al., 2022, PaLM, appendix B): below 5% of a step at the widths of the presets. Masked scores are
counted, since plain attention computes them; embedding lookups are not products.
"""

from flax_transformer.config import ModelConfig, TrainConfig
from flax_transformer.data.masking import count_predicted


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
    row = model.num_encoder_layers * (_attention(model, source, source) + _feed_forward(model, source))
    if model.architecture == "classifier":
        hidden = model.d_model if model.head_hidden != "none" else 0
        return sizes.size * (row + 2 * model.d_model * (hidden + model.num_classes))
    if model.architecture == "masked":
        return sizes.size * (row + 2 * count_predicted(source) * model.d_model * model.source_vocab_size)
    target = _target_length(config)
    attention = _attention(model, target, target) + _attention(model, target, source)
    row += model.num_decoder_layers * (attention + _feed_forward(model, target))
    return sizes.size * (row + 2 * target * model.d_model * model.target_vocab_size)


def train_flops(config: TrainConfig) -> int:
    """Of a training step: each product of the forward pass has one for each of its operands in the backward pass."""
    return 3 * forward_flops(config)


def _attention(model: ModelConfig, queries: int, keys: int) -> int:
    width = model.num_heads * model.head_dim
    projections = 2 * model.d_model * width * (2 * queries + 2 * keys)
    return projections + 2 * (2 * queries * keys * width)


def _feed_forward(model: ModelConfig, tokens: int) -> int:
    return (3 if model.gated else 2) * (2 * tokens * model.d_model * model.d_ff)
