"""Named configs: what each task trains with by default."""

from dataclasses import replace

from flax_transformer.config import (
    OWN_DATA,
    BatchConfig,
    ClassificationData,
    ImdbData,
    ManifestsData,
    MaskedData,
    ModelConfig,
    Multi30kData,
    MultilabelData,
    OptimizerConfig,
    Seq2SeqData,
    SnipsData,
    TokenizerConfig,
    TrainConfig,
)

# Small enough for minutes on two CPU cores, wide enough for the tasks here.
_SMALL = ModelConfig(
    d_model=128, num_heads=4, d_ff=512, num_encoder_layers=2, num_decoder_layers=2, dropout=0.1, positions="rope"
)

_BASE = ModelConfig(
    d_model=512, num_heads=8, d_ff=2048, num_encoder_layers=6, num_decoder_layers=6, norm_first=False, activation="relu"
)


def full_rows(model: ModelConfig, batch: int, length: int) -> TrainConfig:
    """A training run of ``model`` on full rows of ``length`` tokens of source, and as many of target."""
    return TrainConfig(
        data=OWN_DATA[model.architecture](),
        model=replace(model, max_length=max(model.max_length, length + 1)),
        # The decoder reads all of the target but its last token.
        batch=BatchConfig(size=batch, max_source_length=length, max_target_length=length + 1),
    )


_MANIFESTS = TrainConfig(
    data=ManifestsData(),
    tokenizer=TokenizerConfig(vocab_size=1_200, spaces="isolated"),
    model=replace(_SMALL, num_heads=2, dropout=0.0, smeared_keys=True),
    batch=BatchConfig(size=8, max_source_length=512, max_target_length=288, buckets=4),
    optimizer=OptimizerConfig("muon", learning_rate=4e-3, beta2=0.99, warmup_steps=300),
)

# With sinusoidal positions, it takes thousands of steps until a model learns more than which tokens are frequent.
_MASKED = TrainConfig(
    data=MaskedData(),
    tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=8_000, lowercase=True),
    model=replace(_SMALL, architecture="masked"),
    batch=BatchConfig(size=32, max_source_length=512, buckets=8),
    optimizer=OptimizerConfig("muon", learning_rate=4e-3, warmup_steps=100),
    epochs=10,
)


# Task -> preset -> config. The preset called "default" is what `train_flax.py TASK` runs.
PRESETS: dict[str, dict[str, TrainConfig]] = {
    "manifests": {
        "default": _MANIFESTS,
        # For a CPU, where it is as fast and learns in fewer steps (docs/RESULTS.md). A TPU would wait for each token.
        "lstm-encoder": replace(_MANIFESTS, model=replace(_MANIFESTS.model, encoder_mixer="lstm")),
        # An hour or more on two CPU cores; with an LSTM for the same reason.
        "full": TrainConfig(
            data=ManifestsData(train_size=64_000, max_items=4),
            tokenizer=TokenizerConfig(vocab_size=1_200, spaces="isolated"),
            model=replace(_MANIFESTS.model, d_model=192, num_heads=3, d_ff=768, encoder_mixer="lstm"),
            batch=BatchConfig(size=16, max_source_length=512, max_target_length=384, buckets=4),
            optimizer=OptimizerConfig("muon", learning_rate=3e-3, beta2=0.99, warmup_steps=300),
        ),
    },
    "imdb": {
        "default": TrainConfig(
            data=ImdbData(),
            tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=8_000, lowercase=True),
            model=replace(_SMALL, architecture="classifier", dropout=0.2, positions="sinusoidal"),
            batch=BatchConfig(size=32, max_source_length=512, buckets=8, word_dropout=0.2),
            optimizer=OptimizerConfig(weight_decay=0.05),
            label_smoothing=0.1,
            epochs=5,
        ),
        # The assignment this project started from: post-LN, as in the 2017 paper.
        "assignment": TrainConfig(
            data=ImdbData(),
            tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=30_000, lowercase=True),
            model=ModelConfig(
                architecture="classifier",
                d_model=768,
                num_heads=12,
                d_ff=3072,
                num_encoder_layers=4,
                dropout=0.1,
                norm_first=False,
                final_norm=False,
                activation="relu",
                initialization="torch",
            ),
            batch=BatchConfig(size=32, max_source_length=512),
            optimizer=OptimizerConfig(
                name="adam",
                learning_rate=5e-5,
                weight_decay=0.0,
                max_grad_norm=0.0,
                schedule="constant",
                warmup_steps=0,
            ),
        ),
    },
    "multi30k": {
        "default": TrainConfig(
            data=Multi30kData(),
            tokenizer=TokenizerConfig(vocab_size=10_000),
            model=replace(_SMALL, d_ff=256, num_encoder_layers=4, num_decoder_layers=4, dropout=0.3),
            batch=BatchConfig(
                size=64, max_source_length=64, max_target_length=64, bpe_dropout=0.05, target_bpe_dropout=0.05
            ),
            optimizer=OptimizerConfig("muon", learning_rate=4e-3, warmup_steps=500, ema_decay=0.999),
            label_smoothing=0.1,
            epochs=24,
        ),
    },
    "snips": {
        "default": TrainConfig(
            data=SnipsData(swapped_copies=4),
            tokenizer=TokenizerConfig(spaces="isolated"),
            model=replace(_SMALL, dropout=0.3, smeared_keys=True),
            batch=BatchConfig(size=64, max_source_length=96, max_target_length=96),
            optimizer=OptimizerConfig("muon", learning_rate=4e-3, warmup_steps=400, ema_decay=0.999),
            epochs=4,
        ),
    },
    "classification": {
        "default": TrainConfig(
            data=ClassificationData(),
            model=replace(_SMALL, architecture="classifier", dropout=0.2),
            batch=BatchConfig(size=32, word_dropout=0.1),
            label_smoothing=0.1,
            epochs=5,
        ),
    },
    "multilabel": {
        "default": TrainConfig(
            data=MultilabelData(),
            model=replace(_SMALL, architecture="classifier", dropout=0.2),
            batch=BatchConfig(size=32, word_dropout=0.1),
            epochs=10,
        ),
    },
    "seq2seq": {
        "default": TrainConfig(
            data=Seq2SeqData(),
            model=replace(_SMALL, d_model=256, d_ff=1024, num_encoder_layers=3, num_decoder_layers=3),
            epochs=10,
        ),
    },
    "masked": {"default": _MASKED, "imdb": replace(_MASKED, data=MaskedData(of="imdb"))},
}


def _finetuned(config: TrainConfig) -> TrainConfig:
    """For a pre-trained model, which takes the place of the config's own: few epochs, and small steps."""
    return replace(
        config,
        batch=replace(config.batch, size=32, word_dropout=0.0, bpe_dropout=0.0, target_bpe_dropout=0.0),
        optimizer=OptimizerConfig(learning_rate=5e-5, schedule="linear", warmup_steps=50),
        label_smoothing=0.0,
        epochs=3,
    )


for _presets in PRESETS.values():
    _presets["finetune"] = _finetuned(_presets["default"])


# Models without a task, for `plan`, `bench` and `verify`: one of a name is the same in all three.
SIZES: dict[str, ModelConfig] = {
    "mini": ModelConfig(
        d_model=64,
        num_heads=4,
        d_ff=128,
        num_encoder_layers=2,
        num_decoder_layers=2,
        source_vocab_size=500,
        target_vocab_size=500,
    ),
    "tiny": ModelConfig(architecture="classifier", d_model=256, num_heads=4, d_ff=1024, num_encoder_layers=4),
    # As MarianMT of transformers is built: post-LN without final norms.
    "small": ModelConfig(
        d_model=256, num_heads=4, d_ff=1024, norm_first=False, final_norm=False, activation="relu", max_length=1024
    ),
    # The assignment that this project started from.
    "assignment": PRESETS["imdb"]["assignment"].model,
    # The base model of Vaswani et al., 2017, table 3, with the final norms of torch.nn.Transformer; and their big model
    # with twice the layers.
    "base": _BASE,
    "large": replace(_BASE, d_model=1024, num_heads=16, d_ff=4096, num_encoder_layers=12, num_decoder_layers=12),
}


def _t5(d_model: int, num_heads: int, d_ff: int, layers: int) -> ModelConfig:
    """T5 1.1 and Flan-T5."""
    return ModelConfig(
        d_model=d_model,
        num_heads=num_heads,
        d_ff=d_ff,
        num_encoder_layers=layers,
        num_decoder_layers=layers,
        dropout=0.1,
        attention_dropout=0.1,
        norm="rms",
        norm_eps=1e-6,
        activation="gelu_tanh",
        gated=True,
        positions="none",
        relative_buckets=32,
        scale_attention=False,
        scale_embeddings=False,
        tie_embeddings="inputs",
        bias=False,
        max_length=512,
        source_vocab_size=32128,
        target_vocab_size=32128,
        pad_id=0,
        bos_id=0,
        eos_id=1,
    )


# Published checkpoints by their shapes, for `plan`: their weights come by `import`.
PUBLISHED: dict[str, ModelConfig] = {
    "bert-base": ModelConfig(
        architecture="classifier",
        d_model=768,
        num_heads=12,
        d_ff=3072,
        num_encoder_layers=12,
        attention_dropout=0.1,
        feed_forward_dropout=0.0,
        norm_first=False,
        norm_eps=1e-12,
        final_norm=False,
        positions="learned",
        scale_embeddings=False,
        embedding_norm=True,
        token_types=2,
        source_vocab_size=30522,
        target_vocab_size=30522,
        pooling="first",
        head_hidden="tanh",
    ),
    "t5-base": _t5(768, 12, 2048, 12),
    "t5-xl": _t5(2048, 32, 5120, 24),
    "t5-xxl": _t5(4096, 64, 10240, 24),
}
