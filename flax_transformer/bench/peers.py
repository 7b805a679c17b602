"""Models that others would build from the same config: of torch.nn's own layers, and of Hugging Face's transformers."""

from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from flax_transformer.config import ModelConfig
from torch_reference.nn.masks import causal_mask, padding_mask
from torch_reference.nn.models import Classifier, MaskedLM, Model, Seq2Seq, tied_projection
from torch_reference.nn.pooling import Lengths, pool


class NnClassifier(nn.Module):
    """The twin's classifier around nn.TransformerEncoder, with the same weights."""

    def __init__(self, twin: Classifier) -> None:
        super().__init__()
        config = twin.config
        self.config = config
        self.source_table, self.source_embedding = twin.source_table, twin.source_embedding
        self.encoder = _encoder(config)
        self.encoder.load_state_dict(_stack(twin.encoder))
        self.dropout, self.head = twin.dropout, cast(nn.Module, twin.head)

    def forward(self, source: Int[Tensor, "batch source"], source_lengths: Lengths) -> Float[Tensor, "batch classes"]:
        x = self.source_embedding(self.source_table, source)
        x = self.encoder(x, src_key_padding_mask=_blocked(source_lengths, source))
        return self.head(self.dropout(pool(x, source_lengths, self.config.pooling)))


class NnSeq2Seq(nn.Module):
    """The twin's embeddings and projection around the stacks of nn.Transformer, with the same weights."""

    def __init__(self, twin: Seq2Seq) -> None:
        super().__init__()
        config = twin.config
        self.config = config
        self.source_table = twin.source_table
        self.source_embedding, self.target_embedding = twin.source_embedding, twin.target_embedding
        self.encoder = _encoder(config)
        self.encoder.load_state_dict(_stack(twin.encoder))
        norm = nn.LayerNorm(config.d_model, config.norm_eps) if config.final_norm else None
        layer = nn.TransformerDecoderLayer(**_arguments(config))
        self.decoder = nn.TransformerDecoder(layer, config.num_decoder_layers, norm)
        self.decoder.load_state_dict(_stack(twin.decoder))

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        target: Int[Tensor, "batch target"],
        source_lengths: Lengths,
        target_lengths: Lengths,
    ) -> Float[Tensor, "batch target vocab"]:
        blocked = _blocked(source_lengths, source)
        memory = self.encoder(self.source_embedding(self.source_table, source), src_key_padding_mask=blocked)
        length = target.shape[1]
        x = self.decoder(
            self.target_embedding(self.source_table, target),
            memory,
            tgt_mask=~causal_mask(length, length, device=target.device),
            tgt_key_padding_mask=_blocked(target_lengths, target),
            tgt_is_causal=True,
            memory_key_padding_mask=blocked,
        )
        return tied_projection(x, self.source_table, self.config)


def _real(lengths: Lengths, ids: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch length"] | None:
    """The real tokens; None where all are."""
    return None if lengths is None else padding_mask(lengths, ids.shape[1])


def _blocked(lengths: Lengths, ids: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch length"] | None:
    """The padding, as torch.nn marks it."""
    real = _real(lengths, ids)
    return None if real is None else ~real


def of_torch_nn(twin: Model) -> NnClassifier | NnSeq2Seq:
    assert not isinstance(twin, MaskedLM), "no size that is measured has this model"
    return NnClassifier(twin) if isinstance(twin, Classifier) else NnSeq2Seq(twin)


def _arguments(config: ModelConfig) -> dict[str, Any]:
    return {
        "d_model": config.d_model,
        "nhead": config.num_heads,
        "dim_feedforward": config.d_ff,
        "dropout": config.dropout,
        "activation": config.activation,
        "norm_first": config.norm_first,
        "layer_norm_eps": config.norm_eps,
        "batch_first": True,
    }


def _encoder(config: ModelConfig) -> nn.TransformerEncoder:
    norm = nn.LayerNorm(config.d_model, config.norm_eps) if config.final_norm else None
    layer = nn.TransformerEncoderLayer(**_arguments(config))
    # Its nested tensors serve evaluation only, and not pre-LN, of which it warns.
    return nn.TransformerEncoder(layer, config.num_encoder_layers, norm, enable_nested_tensor=False)


# torch.nn's names of a layer's parts; norms are numbered in order.
_ATTENTIONS = {"self_attention": "self_attn", "cross_attention": "multihead_attn"}
_LINEARS = {"feed_forward.up_proj": "linear1", "feed_forward.down_proj": "linear2"}


def _stack(twin: nn.Module) -> dict[str, Tensor]:
    """A stack's weights under the names that torch.nn gives them."""
    weights = twin.state_dict()
    theirs = {name: weight for name, weight in weights.items() if name.startswith("norm.")}
    for i, layer in enumerate(twin.get_submodule("layers").children()):
        of_layer = _layer(layer.state_dict())
        theirs |= {f"layers.{i}.{name}": weight for name, weight in of_layer.items()}
    return theirs


def _layer(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    attentions = {ours: name for ours, name in _ATTENTIONS.items() if f"{ours}.query.weight" in weights}
    norms = {f"{name}_residual.norm": f"norm{i}" for i, name in enumerate([*attentions, "feed_forward"], start=1)}
    theirs = {}
    for kind in ("weight", "bias"):
        for ours, name in attentions.items():
            packed = [weights[f"{ours}.{part}.{kind}"] for part in ("query", "key", "value")]
            theirs[f"{name}.in_proj_{kind}"] = torch.cat(packed)
            theirs[f"{name}.out_proj.{kind}"] = weights[f"{ours}.output.{kind}"]
        for ours, name in (_LINEARS | norms).items():
            theirs[f"{name}.{kind}"] = weights[f"{ours}.{kind}"]
    return theirs


class HuggingFaceClassifier(nn.Module):
    """BERT of equal size with its own weights: another model, which does about the same work."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model: Any = _bert(config)

    def forward(self, source: Int[Tensor, "batch source"], source_lengths: Lengths) -> Float[Tensor, "batch classes"]:
        return self.model(input_ids=source, attention_mask=_real(source_lengths, source)).logits


class HuggingFaceSeq2Seq(nn.Module):
    """Marian of equal size with its own weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model: Any = marian(config)

    def forward(
        self,
        source: Int[Tensor, "batch source"],
        target: Int[Tensor, "batch target"],
        source_lengths: Lengths,
        target_lengths: Lengths,
    ) -> Float[Tensor, "batch target vocab"]:
        return self.model(
            input_ids=source,
            decoder_input_ids=target,
            attention_mask=_real(source_lengths, source),
            decoder_attention_mask=_real(target_lengths, target),
            use_cache=False,
        ).logits


def of_transformers(config: ModelConfig) -> HuggingFaceClassifier | HuggingFaceSeq2Seq:
    return HuggingFaceClassifier(config) if config.architecture == "classifier" else HuggingFaceSeq2Seq(config)


def _bert(config: ModelConfig) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    sizes: dict[str, Any] = {"num_labels": config.num_classes}  # which its signature does not name
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=config.source_vocab_size,
            hidden_size=config.d_model,
            num_hidden_layers=config.num_encoder_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.d_ff,
            hidden_act=config.activation,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.attention_dropout,
            max_position_embeddings=config.max_length,
            **sizes,
        )
    )


def marian(config: ModelConfig) -> Any:
    """MarianMT of the config's size."""
    from transformers import MarianConfig, MarianMTModel

    return MarianMTModel(
        MarianConfig(
            vocab_size=config.source_vocab_size,
            d_model=config.d_model,
            encoder_layers=config.num_encoder_layers,
            decoder_layers=config.num_decoder_layers,
            encoder_attention_heads=config.num_heads,
            decoder_attention_heads=config.num_heads,
            encoder_ffn_dim=config.d_ff,
            decoder_ffn_dim=config.d_ff,
            activation_function=config.activation,
            dropout=config.dropout,
            attention_dropout=config.attention_dropout,
            activation_dropout=config.dropout,
            max_position_embeddings=config.max_length,
            scale_embedding=config.scale_embeddings,
            pad_token_id=config.pad_id,
            eos_token_id=config.eos_id,
            decoder_start_token_id=config.bos_id,
            forced_eos_token_id=None,
        )
    )
