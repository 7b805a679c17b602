"""T5 1.0, T5 1.1 and Flan-T5 (Raffel et al., 2020)."""

import numpy as np

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError
from flax_transformer.interop.huggingface.family import Family, Field, Settings, Weights, fixed, same
from flax_transformer.interop.huggingface.keys import Keys, Rule
from flax_transformer.interop.huggingface.seq2seq import IDS

# The name of a feed-forward sublayer -> activation, and whether it gates.
_FEED_FORWARD = {
    "relu": ("relu", False),
    "gated-gelu": ("gelu_tanh", True),
    "gelu_new": ("gelu_tanh", False),
    "gelu": ("gelu", False),
    "silu": ("silu", False),
    "gated-silu": ("silu", True),
    "gated-relu": ("relu", True),
}


def _read_feed_forward(settings: Settings) -> tuple[str, bool]:
    name = settings["feed_forward_proj"]
    if name not in _FEED_FORWARD:
        raise UserError(f"feed_forward_proj: expected one of {', '.join(_FEED_FORWARD)}, got {name!r}")
    return _FEED_FORWARD[name]


def _write_feed_forward(config: ModelConfig) -> Settings:
    wanted = (config.activation, config.gated)
    return {"feed_forward_proj": next((name for name, value in _FEED_FORWARD.items() if value == wanted), "relu")}


def _read_head_width(settings: Settings) -> int | None:
    width = settings["d_kv"]
    return None if width * settings["num_heads"] == settings["d_model"] else width


def _clarify(settings: Settings, weights: Weights) -> Settings:
    """Whether the projection has a table of its own shows in the weights alone.

    Files of transformers 4 say by ``tie_word_embeddings`` whether logits are scaled, later ones by another setting.
    """
    scaled = settings.get("scale_decoder_outputs", settings.get("tie_word_embeddings", True))
    table = next((weights[name] for name in ("shared.weight", "encoder.embed_tokens.weight") if name in weights), None)
    own = weights.get("lm_head.weight")
    tied = own is None or (table is not None and np.array_equal(own, table))
    return {**settings, "scale_decoder_outputs": scaled, "tie_word_embeddings": tied}


_ATTENTION = (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output"))


def _attention(side: str, number: int, theirs: str, ours: str) -> tuple[Rule, ...]:
    layer = f"{side}.block.{{n}}.layer.{number}"
    return (
        *(
            Rule(f"{layer}.{theirs}.{one}.weight", f"{side}.layers.{{n}}.{ours}.{other}.weight")
            for one, other in _ATTENTION
        ),
        Rule(f"{layer}.layer_norm.weight", f"{side}.layers.{{n}}.{ours}_residual.norm.weight"),
    )


def _feed_forward(side: str, number: int, *, gated: bool) -> tuple[Rule, ...]:
    parts = (("wi_0", "gate_proj"), ("wi_1", "up_proj")) if gated else (("wi", "up_proj"),)
    layer, sublayer = f"{side}.block.{{n}}.layer.{number}", f"{side}.layers.{{n}}.feed_forward"
    return (
        *(
            Rule(f"{layer}.DenseReluDense.{theirs}.weight", f"{sublayer}.{ours}.weight")
            for theirs, ours in (*parts, ("wo", "down_proj"))
        ),
        Rule(f"{layer}.layer_norm.weight", f"{sublayer}_residual.norm.weight"),
    )


def _stack(side: str) -> tuple[Rule, ...]:
    return (
        *_attention(side, 0, "SelfAttention", "self_attention"),
        Rule(f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight", f"{side}.relative_bias.weight"),
        Rule(f"{side}.final_layer_norm.weight", f"{side}.norm.weight"),
    )


def _conditional(config: ModelConfig) -> tuple[Rule, ...]:
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    tied = config.tie_embeddings == "all"
    return (
        *_feed_forward("encoder", 1, gated=config.gated),
        *_feed_forward("decoder", 2, gated=config.gated),
        Rule("shared.weight", "source_table.weight", copies=(*copies, "lm_head.weight") if tied else copies),
        *(() if tied else (Rule("lm_head.weight", "projection.weight"),)),
    )


T5 = Family(
    model_type="t5",
    model_class="T5ForConditionalGeneration",
    other_classes=("T5WithLMHeadModel",),
    bare_class="",
    defaults={
        "vocab_size": 32128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 6,
        "num_decoder_layers": None,
        "num_heads": 8,
        "n_positions": 512,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "dropout_rate": 0.1,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "relu",
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "scale_decoder_outputs": True,
        "tie_word_embeddings": True,
    },
    fields=(
        *fixed(
            architecture="seq2seq",
            norm_first=True,
            final_norm=True,
            norm="rms",
            bias=False,
            positions="none",
            scale_attention=False,
            scale_embeddings=False,
        ),
        same("vocab_size", "source_vocab_size"),
        Field("target_vocab_size", lambda settings: settings["vocab_size"]),
        same("d_model", "d_model"),
        Field("head_width", _read_head_width, lambda config: {"d_kv": config.head_dim}),
        same("d_ff", "d_ff"),
        same("num_layers", "num_encoder_layers"),
        Field(
            "num_decoder_layers",
            lambda settings: settings["num_decoder_layers"] or settings["num_layers"],
            lambda config: {"num_decoder_layers": config.num_decoder_layers},
        ),
        same("num_heads", "num_heads"),
        same("n_positions", "max_length"),
        same("relative_attention_num_buckets", "relative_buckets"),
        same("relative_attention_max_distance", "relative_max_distance"),
        same("dropout_rate", "dropout"),
        Field("attention_dropout", lambda settings: settings["dropout_rate"]),
        same("layer_norm_epsilon", "norm_eps"),
        Field("activation", lambda settings: _read_feed_forward(settings)[0], _write_feed_forward),
        Field("gated", lambda settings: _read_feed_forward(settings)[1]),
        Field(
            "tie_embeddings",
            lambda settings: "all" if settings["tie_word_embeddings"] else "inputs",
            lambda config: {"tie_word_embeddings": config.tie_embeddings == "all"},
        ),
        same("scale_decoder_outputs", "scale_logits"),
        *IDS,
    ),
    keys=Keys(
        "",
        (
            *_stack("encoder"),
            *_stack("decoder"),
            *_attention("decoder", 1, "EncDecAttention", "cross_attention"),
        ),
        (r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
    ),
    conditional=_conditional,
    demanded={"is_encoder_decoder": True, "is_decoder": False},
    clarify=_clarify,
)
