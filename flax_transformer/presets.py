"""Named configs: what each task trains with by default, and the model sizes that are benchmarked."""

from flax_transformer.config import (
    BatchConfig,
    ClassificationData,
    ImdbData,
    ManifestsData,
    ModelConfig,
    Multi30kData,
    OptimizerConfig,
    Seq2SeqData,
    SnipsData,
    TokenizerConfig,
    TrainConfig,
)

# Task -> preset -> config. The preset called "default" is what `train_flax.py TASK` runs.
PRESETS: dict[str, dict[str, TrainConfig]] = {
    "manifests": {
        "default": TrainConfig(
            data=ManifestsData(),
            tokenizer=TokenizerConfig(vocab_size=2_000),
            model=ModelConfig(
                d_model=128,
                num_heads=4,
                d_ff=512,
                num_encoder_layers=2,
                num_decoder_layers=2,
                dropout=0.0,
                positions="rope",
            ),
        ),
    },
    "imdb": {
        "default": TrainConfig(
            data=ImdbData(),
            tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=8_000, lowercase=True),
            model=ModelConfig(
                architecture="classifier",
                d_model=128,
                num_heads=4,
                d_ff=512,
                num_encoder_layers=2,
                dropout=0.1,
            ),
            batch=BatchConfig(size=32, max_source_length=256, word_dropout=0.1),
            label_smoothing=0.1,
            epochs=4,
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
                name="adam", learning_rate=5e-5, weight_decay=0.0, clip_norm=0.0, schedule="constant", warmup_steps=0
            ),
            epochs=1,
        ),
    },
    "multi30k": {"default": TrainConfig(data=Multi30kData(), label_smoothing=0.1, epochs=20)},
    "snips": {"default": TrainConfig(data=SnipsData(), tokenizer=TokenizerConfig(vocab_size=4_000), epochs=30)},
    "classification": {
        "default": TrainConfig(data=ClassificationData(), model=ModelConfig(architecture="classifier"), epochs=5),
    },
    "seq2seq": {"default": TrainConfig(data=Seq2SeqData(), epochs=10)},
}
