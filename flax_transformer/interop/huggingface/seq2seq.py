"""BART and its kin, which share one layout: BART, mBART, Marian and Pegasus."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError
from flax_transformer.interop.huggingface.encoders import ACTIVATIONS
from flax_transformer.interop.huggingface.family import Computed, Family, Field, Settings, fixed, named, same
from flax_transformer.interop.huggingface.keys import Keys, Rule, linear_rules

_DEFAULTS = {
    "vocab_size": 50265,
    "max_position_embeddings": 1024,
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "activation_function": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "scale_embedding": False,
    "is_encoder_decoder": True,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "tie_word_embeddings": True,
}


def begin_id(settings: Settings) -> int:
    """The token that the decoder begins with.

    Raises:
        UserError: the model leaves it to the caller, as some mBART do.
    """
    start = settings.get("decoder_start_token_id")
    if start is None:
        raise UserError(
            "decoder_start_token_id: expected the id of the token that the decoder begins with, got none; "
            "write it into config.json (of an mBART the code of the language to write)"
        )
    return start


def end_id(settings: Settings) -> int:
    """The token that ends an output.

    Raises:
        UserError: there are several.
    """
    end = settings["eos_token_id"]
    if not isinstance(end, int):
        raise UserError(
            f"eos_token_id: expected one id, got {end!r}; write the one that ends an output into config.json"
        )
    return end


IDS = (
    same("pad_token_id", "pad_id"),
    Field("bos_id", begin_id, lambda config: {"decoder_start_token_id": config.bos_id, "bos_token_id": None}),
    Field("eos_id", end_id, lambda config: {"eos_token_id": config.eos_id}),
)
_SHARED = (
    *fixed(architecture="seq2seq", norm_eps=1e-5, logits_bias=True),
    same("vocab_size", "source_vocab_size"),
    same("d_model", "d_model"),
    same("encoder_attention_heads", "num_heads"),
    same("encoder_layers", "num_encoder_layers"),
    same("decoder_layers", "num_decoder_layers"),
    same("encoder_ffn_dim", "d_ff"),
    same("max_position_embeddings", "max_length"),
    same("dropout", "dropout"),
    same("attention_dropout", "attention_dropout"),
    Field(
        "feed_forward_dropout",
        lambda settings: settings["activation_dropout"],
        lambda config: {
            "activation_dropout": config.dropout if config.feed_forward_dropout is None else config.feed_forward_dropout
        },
    ),
    same("scale_embedding", "scale_embeddings"),
    named("activation_function", "activation", ACTIVATIONS),
    *IDS,
)
_ONE_TABLE = (Field("target_vocab_size", lambda settings: settings["vocab_size"]), *fixed(tie_embeddings="all"))
_EQUAL = (
    ("encoder_attention_heads", "decoder_attention_heads"),
    ("encoder_ffn_dim", "decoder_ffn_dim"),
)
_DEMANDED = {"is_encoder_decoder": True}


def _layer(side: str, parts: tuple[tuple[str, str], ...]) -> tuple[Rule, ...]:
    return linear_rules((f"{side}.layers.{{n}}.{theirs}", f"{side}.layers.{{n}}.{ours}") for theirs, ours in parts)


def _attention(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    return (
        (f"{theirs}.q_proj", f"{ours}.query"),
        (f"{theirs}.k_proj", f"{ours}.key"),
        (f"{theirs}.v_proj", f"{ours}.value"),
        (f"{theirs}.out_proj", f"{ours}.output"),
        (f"{theirs}_layer_norm", f"{ours}_residual.norm"),
    )


_FEED_FORWARD = (
    ("fc1", "feed_forward.up_proj"),
    ("fc2", "feed_forward.down_proj"),
    ("final_layer_norm", "feed_forward_residual.norm"),
)
_SELF = _attention("self_attn", "self_attention")
_LAYERS = (
    *_layer("encoder", (*_SELF, *_FEED_FORWARD)),
    *_layer("decoder", (*_SELF, *_attention("encoder_attn", "cross_attention"), *_FEED_FORWARD)),
    Rule("/final_logits_bias", "logits_bias", is_row=True),
)
_TABLE = Rule(
    "shared.weight",
    "source_table.weight",
    copies=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "/lm_head.weight"),
)
_OWN_TABLES = (
    Rule("encoder.embed_tokens.weight", "source_table.weight"),
    Rule("decoder.embed_tokens.weight", "target_table.weight", copies=("/lm_head.weight",)),
)
_LEARNED = (
    Rule("encoder.embed_positions.weight", "source_embedding.positions.table"),
    Rule("decoder.embed_positions.weight", "target_embedding.positions.table"),
    *linear_rules(
        (
            ("encoder.layernorm_embedding", "source_embedding.norm"),
            ("decoder.layernorm_embedding", "target_embedding.norm"),
        )
    ),
)
_LAST_NORMS = linear_rules((("encoder.layer_norm", "encoder.norm"), ("decoder.layer_norm", "decoder.norm")))
_IGNORED = (r"(encoder|decoder)\.version",)


def sinusoids_in_halves(config: ModelConfig) -> Float[np.ndarray, "max_length d_model"]:
    """The position table as Marian and Pegasus have it: first all sines, then all cosines; in float32."""
    width = config.d_model
    angles = np.arange(config.max_length)[:, None] / np.power(10000, 2 * (np.arange(width) // 2) / width)
    return np.concatenate([np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])], axis=1).astype(np.float32)


_SINUSOIDS = tuple(
    Computed(f"{side}.embed_positions.weight", sinusoids_in_halves, "sinusoids, first all sines and then all cosines")
    for side in ("encoder", "decoder")
)

BART = Family(
    model_type="bart",
    model_class="BartForConditionalGeneration",
    other_classes=("BartModel",),
    bare_class="",
    defaults=_DEFAULTS,
    fields=(
        *(*_SHARED, *_ONE_TABLE),
        *fixed(norm_first=False, final_norm=False, positions="learned", position_offset=2, embedding_norm=True),
    ),
    keys=Keys("model.", (_TABLE, *_LAYERS, *_LEARNED), _IGNORED),
    demanded=_DEMANDED,
    noted={"normalize_before": False, "normalize_embedding": True},
    equal=_EQUAL,
)

MBART = replace(
    BART,
    model_type="mbart",
    model_class="MBartForConditionalGeneration",
    other_classes=("MBartModel",),
    defaults=_DEFAULTS | {"decoder_start_token_id": None},
    fields=(
        *(*_SHARED, *_ONE_TABLE),
        *fixed(norm_first=True, final_norm=True, positions="learned", position_offset=2, embedding_norm=True),
    ),
    keys=Keys("model.", (_TABLE, *_LAYERS, *_LEARNED, *_LAST_NORMS), _IGNORED),
    noted={"normalize_before": True, "normalize_embedding": True},
)

MARIAN = Family(
    model_type="marian",
    model_class="MarianMTModel",
    other_classes=("MarianModel",),
    bare_class="",
    defaults=_DEFAULTS
    | {
        "vocab_size": 58101,
        "decoder_vocab_size": None,
        "share_encoder_decoder_embeddings": True,
        "pad_token_id": 58100,
        "bos_token_id": None,
        "eos_token_id": 0,
        "decoder_start_token_id": 58100,
    },
    fields=(
        *_SHARED,
        *fixed(norm_first=False, final_norm=False, positions="sinusoidal_halves"),
        Field(
            "target_vocab_size",
            lambda settings: settings["decoder_vocab_size"] or settings["vocab_size"],
            lambda config: {"decoder_vocab_size": config.target_vocab_size},
        ),
        Field(
            "tie_embeddings",
            lambda settings: "all" if settings["share_encoder_decoder_embeddings"] else "target",
            lambda config: {"share_encoder_decoder_embeddings": config.tie_embeddings == "all"},
        ),
    ),
    keys=Keys("model.", _LAYERS, _IGNORED),
    conditional=lambda config: (_TABLE,) if config.tie_embeddings == "all" else _OWN_TABLES,
    computed=_SINUSOIDS,
    demanded=_DEMANDED,
    noted={"normalize_before": False, "normalize_embedding": False},
    equal=_EQUAL,
)

PEGASUS = Family(
    model_type="pegasus",
    model_class="PegasusForConditionalGeneration",
    other_classes=("PegasusModel",),
    bare_class="",
    defaults=_DEFAULTS | {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1, "decoder_start_token_id": 0},
    fields=(
        *(*_SHARED, *_ONE_TABLE),
        *fixed(norm_first=True, final_norm=True, positions="sinusoidal_halves"),
    ),
    keys=Keys("model.", (_TABLE, *_LAYERS, *_LAST_NORMS), _IGNORED),
    computed=_SINUSOIDS,
    demanded=_DEMANDED,
    # CTranslate2 takes a Pegasus for post-LN without them.
    noted={"normalize_before": True, "normalize_embedding": False},
    equal=_EQUAL,
)
