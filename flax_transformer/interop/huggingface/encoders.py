"""BERT and its kin: encoders, with a head for classes or without."""

from dataclasses import replace

from flax_transformer.interop.huggingface.family import Family, Field, Settings, fixed, named, same
from flax_transformer.interop.huggingface.keys import Keys, Rule, linear_rules

ACTIVATIONS = {
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "swish": "silu",
}
# Their post-LN encoder, and a head that reads the first token.
_POST_LN = fixed(
    architecture="classifier",
    norm_first=False,
    final_norm=False,
    positions="learned",
    embedding_norm=True,
    scale_embeddings=False,
    pooling="first",
)
# transformers drops nothing inside their feed-forward sublayers.
_BERT_DROPOUT = (
    same("hidden_dropout_prob", "dropout"),
    same("attention_probs_dropout_prob", "attention_dropout"),
    *fixed(feed_forward_dropout=0.0),
)
_TABLE = (
    same("vocab_size", "source_vocab_size"),
    # Encoders have no target; as in a training run, both are the tokenizer's.
    Field("target_vocab_size", lambda settings: settings["vocab_size"]),
)
_SIZES = (
    *_TABLE,
    same("hidden_size", "d_model"),
    same("num_attention_heads", "num_heads"),
    same("num_hidden_layers", "num_encoder_layers"),
    same("intermediate_size", "d_ff"),
    named("hidden_act", "activation", ACTIVATIONS),
    same("layer_norm_eps", "norm_eps"),
)
_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    "classifier_dropout": None,
}
_ROBERTA_DEFAULTS = _DEFAULTS | {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_DEMANDED = {"is_decoder": False, "add_cross_attention": False, "position_embedding_type": "absolute"}

_EMBEDDINGS = (
    Rule("embeddings.word_embeddings.weight", "source_table.weight"),
    Rule("embeddings.position_embeddings.weight", "source_embedding.positions.table"),
    Rule("embeddings.token_type_embeddings.weight", "source_embedding.types.weight"),
    Rule("embeddings.LayerNorm.{p}", "source_embedding.norm.{p}"),
)
_SUBLAYERS = (
    "self_attention.query",
    "self_attention.key",
    "self_attention.value",
    "self_attention.output",
    "self_attention_residual.norm",
    "feed_forward.up_proj",
    "feed_forward.down_proj",
    "feed_forward_residual.norm",
)


def _layer(layers: str, *theirs: str) -> tuple[Rule, ...]:
    """Rules of the encoder's layers, from their names of :data:`_SUBLAYERS`, in that order."""
    return linear_rules(
        (f"{layers}.{{n}}.{name}", f"encoder.layers.{{n}}.{ours}")
        for name, ours in zip(theirs, _SUBLAYERS, strict=True)
    )


_OUTPUT = ("intermediate.dense", "output.dense", "output.LayerNorm")
_LAYER = _layer(
    "encoder.layer",
    *("attention.self.query", "attention.self.key", "attention.self.value"),
    *("attention.output.dense", "attention.output.LayerNorm"),
    *_OUTPUT,
)
_TWO_LAYER_HEAD = linear_rules((("/classifier.dense", "hidden"), ("/classifier.out_proj", "head")))
# Numbers of positions, and what other heads have.
_IGNORED = (
    r"embeddings\.(position_ids|token_type_ids)",
    r"/(cls|lm_head|qa_outputs|classifier|predictions|mlm|nsp)\..+",
)
_WITH_POOLER_LEFT_OUT = (*_IGNORED, r"pooler\..+")


def _id(theirs: str, ours: str) -> Field:
    """A special id that encoders do without, and many files leave out: then that of padding."""

    def read(settings: Settings) -> int:
        value = settings.get(theirs)
        return settings["pad_token_id"] if value is None else value

    return Field(ours, read, lambda config: {theirs: getattr(config, ours)})


def _positions_behind(offset: int | None) -> tuple[Field, Field]:
    """Tables whose number of rows counts those before the first position; without ``offset`` the padding id + 1."""

    def rows_before(settings: Settings) -> int:
        return settings["pad_token_id"] + 1 if offset is None else offset

    return (
        Field("position_offset", rows_before),
        Field(
            "max_length",
            lambda settings: settings["max_position_embeddings"] - rows_before(settings),
            lambda config: {"max_position_embeddings": config.max_length + config.position_offset},
        ),
    )


_IDS = (same("pad_token_id", "pad_id"), _id("bos_token_id", "bos_id"), _id("eos_token_id", "eos_id"))
_HEAD_DROPOUT = same("classifier_dropout", "head_dropout")

BERT = Family(
    model_type="bert",
    model_class="BertForSequenceClassification",
    bare_class="BertModel",
    defaults=_DEFAULTS,
    fields=(
        *(*_SIZES, *_POST_LN, *_BERT_DROPOUT, *_IDS, _HEAD_DROPOUT, *_positions_behind(0)),
        same("type_vocab_size", "token_types"),
        *fixed(head_hidden="tanh"),
    ),
    keys=Keys(
        "bert.",
        (*_EMBEDDINGS, *_LAYER, *linear_rules((("pooler.dense", "hidden"), ("/classifier", "head")))),
        _IGNORED,
    ),
    demanded=_DEMANDED,
    reads_types=True,
)

ROBERTA = Family(
    model_type="roberta",
    model_class="RobertaForSequenceClassification",
    bare_class="RobertaModel",
    defaults=_ROBERTA_DEFAULTS,
    fields=(
        *(*_SIZES, *_POST_LN, *_BERT_DROPOUT, *_IDS, _HEAD_DROPOUT, *_positions_behind(None)),
        same("type_vocab_size", "token_types"),
        *fixed(head_hidden="tanh"),
    ),
    keys=Keys("roberta.", (*_EMBEDDINGS, *_LAYER, *_TWO_LAYER_HEAD), _WITH_POOLER_LEFT_OUT),
    demanded=_DEMANDED,
)
XLM_ROBERTA = replace(
    ROBERTA,
    model_type="xlm-roberta",
    model_class="XLMRobertaForSequenceClassification",
    bare_class="XLMRobertaModel",
)
CAMEMBERT = replace(
    ROBERTA,
    model_type="camembert",
    model_class="CamembertForSequenceClassification",
    bare_class="CamembertModel",
)

ELECTRA = Family(
    model_type="electra",
    model_class="ElectraForSequenceClassification",
    bare_class="ElectraModel",
    defaults=_DEFAULTS
    | {"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    fields=(
        *(*_SIZES, *_POST_LN, *_BERT_DROPOUT, *_IDS, _HEAD_DROPOUT, *_positions_behind(0)),
        same("type_vocab_size", "token_types"),
        Field(
            "embedding_width",
            lambda settings: (
                None if settings["embedding_size"] == settings["hidden_size"] else settings["embedding_size"]
            ),
            lambda config: {"embedding_size": config.embedding_dim},
        ),
        *fixed(head_hidden="gelu"),
    ),
    keys=Keys(
        "electra.",
        (
            *(*_EMBEDDINGS, *_LAYER, *_TWO_LAYER_HEAD),
            *linear_rules((("embeddings_project", "source_embedding.projection"),)),
        ),
        (*_IGNORED, r"/(discriminator_predictions|generator_predictions|generator_lm_head)\..+"),
    ),
    demanded=_DEMANDED,
    reads_types=True,
)

DISTILBERT = Family(
    model_type="distilbert",
    model_class="DistilBertForSequenceClassification",
    bare_class="DistilBertModel",
    defaults={
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "n_layers": 6,
        "n_heads": 12,
        "dim": 768,
        "hidden_dim": 3072,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "activation": "gelu",
        "seq_classif_dropout": 0.2,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
    },
    fields=(
        *_TABLE,
        same("dim", "d_model"),
        same("n_heads", "num_heads"),
        same("n_layers", "num_encoder_layers"),
        same("hidden_dim", "d_ff"),
        named("activation", "activation", ACTIVATIONS),
        same("dropout", "dropout"),
        same("attention_dropout", "attention_dropout"),
        Field(
            "head_dropout",
            lambda settings: settings["seq_classif_dropout"],
            lambda config: {"seq_classif_dropout": _or(config.head_dropout, config.dropout)},
        ),
        *(*_POST_LN, *_IDS, *_positions_behind(0)),
        *fixed(norm_eps=1e-12, head_hidden="relu", feed_forward_dropout=0.0),
    ),
    keys=Keys(
        "distilbert.",
        (
            *_EMBEDDINGS[:2],
            _EMBEDDINGS[3],
            *_layer(
                "transformer.layer",
                *("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin", "sa_layer_norm"),
                *("ffn.lin1", "ffn.lin2", "output_layer_norm"),
            ),
            *linear_rules((("/pre_classifier", "hidden"), ("/classifier", "head"))),
        ),
        (*_IGNORED, r"/(vocab_transform|vocab_layer_norm|vocab_projector)\..+"),
    ),
)

MPNET = Family(
    model_type="mpnet",
    model_class="MPNetForSequenceClassification",
    bare_class="MPNetModel",
    defaults=_ROBERTA_DEFAULTS | {"vocab_size": 30527, "relative_attention_num_buckets": 32},
    fields=(
        *(*_SIZES, *_POST_LN, *_BERT_DROPOUT, *_IDS, *_positions_behind(2)),
        same("relative_attention_num_buckets", "relative_buckets"),
        *fixed(head_hidden="tanh", relative_max_distance=128),
    ),
    keys=Keys(
        "mpnet.",
        (
            *_EMBEDDINGS[:2],
            _EMBEDDINGS[3],
            Rule("encoder.relative_attention_bias.weight", "encoder.relative_bias.weight"),
            *_layer(
                "encoder.layer",
                *("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
                *("attention.LayerNorm", *_OUTPUT),
            ),
            *_TWO_LAYER_HEAD,
        ),
        _WITH_POOLER_LEFT_OUT,
    ),
    demanded=_DEMANDED,
)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
