"""Small models of Hugging Face's transformers, one of each kind that can be imported, with random weights."""

import dataclasses
import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flax import nnx
from twins import with_weights

from flax_transformer.config import ModelConfig
from flax_transformer.interop.huggingface.checkpoint import read_checkpoint
from flax_transformer.interop.huggingface.family import Weights
from flax_transformer.interop.huggingface.importing import read_model
from flax_transformer.nn.models import create_model as create_flax
from torch_reference.nn.models import create_model as create_torch

# Positions that T5's buckets of distances lie between, and rows that are full, short, single and in between.
LENGTHS = np.array([30, 7, 1, 19], np.int32)
TARGET_LENGTHS = np.array([6, 23, 11, 1], np.int32)
VOCABULARY = 37

_BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 29,
    "max_position_embeddings": 41,
    "num_labels": 5,
    "classifier_dropout": 0.3,
}
_BART = {
    "vocab_size": VOCABULARY,
    "d_model": 12,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 29,
    "decoder_ffn_dim": 29,
    "max_position_embeddings": 41,
    "forced_eos_token_id": None,
}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": 12,
    "d_kv": 4,
    "num_heads": 3,
    "d_ff": 29,
    "num_layers": 2,
    "num_decoder_layers": 1,
    "n_positions": 41,
    "decoder_start_token_id": 0,
}


@dataclass(frozen=True)
class Kind:
    """A model class of transformers with the settings of a small model.

    Attributes:
        own_projection: T5 1.1 has a projection of its own, which its class ties until other weights are loaded.
        spread: of what is added to each weight. Enough that outputs depend on inputs; of T5 less, since its scores are
            not divided by anything, and a softmax of large ones magnifies all rounding.
        seed: with it, what a generator writes depends on what it reads.
        left_out: keys that are not imported, since the class for classification does not have them.
    """

    model_class: str
    settings: dict[str, Any]
    own_projection: bool = False
    left_out: frozenset[str] = frozenset()
    spread: float = 0.3
    seed: int = 1

    @property
    def is_encoder(self) -> bool:
        return "Generation" not in self.model_class and "MT" not in self.model_class


KINDS = {
    "bert": Kind("BertForSequenceClassification", _BERT),
    "bert-bare": Kind("BertModel", _BERT),
    "roberta": Kind("RobertaForSequenceClassification", _BERT | {"layer_norm_eps": 1e-5, "type_vocab_size": 1}),
    "xlm-roberta": Kind("XLMRobertaForSequenceClassification", _BERT | {"layer_norm_eps": 1e-5, "type_vocab_size": 1}),
    "camembert": Kind("CamembertForSequenceClassification", _BERT | {"hidden_act": "relu", "type_vocab_size": 1}),
    "distilbert": Kind(
        "DistilBertForSequenceClassification",
        {
            "vocab_size": VOCABULARY,
            "dim": 12,
            "n_layers": 2,
            "n_heads": 3,
            "hidden_dim": 29,
            "max_position_embeddings": 41,
            "num_labels": 5,
        },
    ),
    "electra": Kind("ElectraForSequenceClassification", _BERT | {"embedding_size": 7}),
    "electra-base": Kind("ElectraForSequenceClassification", _BERT | {"embedding_size": 12}),
    "mpnet": Kind("MPNetForSequenceClassification", _BERT),
    "mpnet-bare": Kind("MPNetModel", _BERT, left_out=frozenset({"pooler.dense.weight", "pooler.dense.bias"})),
    "bart": Kind("BartForConditionalGeneration", _BART),
    "mbart": Kind("MBartForConditionalGeneration", _BART | {"decoder_start_token_id": 5, "scale_embedding": True}),
    "marian": Kind(
        "MarianMTModel",
        _BART
        | {"pad_token_id": 36, "decoder_start_token_id": 36, "scale_embedding": True, "activation_function": "swish"},
    ),
    "marian-two-tables": Kind(
        "MarianMTModel",
        _BART
        | {
            "share_encoder_decoder_embeddings": False,
            "decoder_vocab_size": 31,
            "pad_token_id": 30,
            "decoder_start_token_id": 30,
        },
    ),
    "pegasus": Kind(
        "PegasusForConditionalGeneration", _BART | {"activation_function": "relu", "scale_embedding": True}, seed=3
    ),
    "t5": Kind("T5ForConditionalGeneration", _T5, spread=0.2),
    "t5-1.1": Kind(
        "T5ForConditionalGeneration",
        _T5 | {"d_kv": 7, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        own_projection=True,
        spread=0.2,
    ),
}
ENCODERS = [name for name, kind in KINDS.items() if kind.is_encoder]
GENERATORS = [name for name, kind in KINDS.items() if not kind.is_encoder]


def random_model(name: str) -> torch.nn.Module:
    """A model of this kind in float32, with all norms, biases and constants away from where they start."""
    import transformers

    kind = KINDS[name]
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(sum(map(ord, name)) + kind.seed)
        cls = getattr(transformers, kind.model_class)
        model = cls(cls.config_class(**kind.settings))
        model.config._attn_implementation = "eager"
        if kind.own_projection:
            model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape))
        for parameter in {id(p): p for p in model.parameters() if p.requires_grad}.values():
            parameter += kind.spread * torch.randn(parameter.shape)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_(std=0.1)
    return model.eval()


def save(model: torch.nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def random_ids(model: torch.nn.Module, rows: np.ndarray, vocabulary: int, seed: int = 0) -> np.ndarray:
    """Right-padded random ids without special ones."""
    config = model.config
    special = {config.pad_token_id, config.eos_token_id, getattr(config, "decoder_start_token_id", None)}
    ordinary = [token for token in range(vocabulary) if token not in special]
    ids = np.random.default_rng(seed).choice(ordinary, (len(rows), rows.max())).astype(np.int32)
    ids[np.arange(rows.max()) >= rows[:, None]] = config.pad_token_id
    return ids


def target_ids(model: torch.nn.Module, rows: np.ndarray, seed: int = 1) -> np.ndarray:
    """As the decoder reads them: the begin token first."""
    vocabulary = getattr(model.config, "decoder_vocab_size", None) or model.config.vocab_size
    ids = random_ids(model, rows, vocabulary, seed)
    ids[:, 0] = model.config.decoder_start_token_id
    return ids


@functools.cache
def imported(name: str) -> tuple[torch.nn.Module, ModelConfig, Weights]:
    """A random model of transformers, and what is read of its folder."""
    model = random_model(name)
    with tempfile.TemporaryDirectory() as folder:
        _, config, weights, _ = read_model(read_checkpoint(save(model, Path(folder))))
    return model, config, weights


def in_dtype(config: ModelConfig, weights: Weights, dtype: str) -> tuple[ModelConfig, Weights]:
    config = dataclasses.replace(config, dtype=dtype, param_dtype=dtype, attention_backend="xla")
    return config, {name: weight.astype(dtype) for name, weight in weights.items()}


def torch_twin(config: ModelConfig, weights: Weights) -> torch.nn.Module:
    model = create_torch(config)
    model.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()}, strict=True)
    return model.eval()


def flax_twin(config: ModelConfig, weights: Weights) -> Any:
    return with_weights(nnx.eval_shape(lambda: create_flax(config, seed=0)), weights, "")


def inputs(model: torch.nn.Module, config: ModelConfig) -> tuple[np.ndarray, ...]:
    """Ragged rows of ids with their lengths: sources, or sources and targets."""
    source = random_ids(model, LENGTHS, config.source_vocab_size)
    if config.architecture == "classifier":
        return source, LENGTHS
    return source, target_ids(model, TARGET_LENGTHS), LENGTHS, TARGET_LENGTHS


@torch.no_grad()
def outputs(model: torch.nn.Module, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """Logits of transformers; of a bare encoder the pooled rows."""
    source, mask = torch.tensor(arrays[0]).long(), source_mask(arrays[0])
    if len(arrays) == 4:
        target = torch.tensor(arrays[1]).long()
        return model(input_ids=source, attention_mask=mask, decoder_input_ids=target).logits.numpy()
    output = model(input_ids=source, attention_mask=mask)
    if hasattr(output, "logits"):
        return output.logits.numpy()
    is_bert = type(model).__name__ == "BertModel"
    return (output.pooler_output if is_bert else output.last_hidden_state[:, 0]).numpy()


def source_mask(source: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.arange(source.shape[1]) < LENGTHS[:, None]).long()


def real(output: np.ndarray, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """Without the logits of padding."""
    return output if len(arrays) == 2 else output[np.arange(output.shape[1]) < TARGET_LENGTHS[:, None]]
