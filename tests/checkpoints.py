"""Small checkpoints as transformers has them: settings, random weights and a tokenizer of whole words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from flax_transformer.interop.huggingface.families import FAMILIES
from flax_transformer.interop.huggingface.family import Settings, Weights
from flax_transformer.interop.huggingface.shapes import weight_shapes
from flax_transformer.interop.huggingface.weights import to_theirs

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "film", "was", "good", "poor", "long", "a"]
PAD, UNK, CLS, SEP, THE, FILM, WAS, GOOD = range(8)
# As on the hub: settings that are the defaults of the class are left out.
BERT: Settings = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
    "vocab_size": 13,
    "id2label": {"1": "good", "0": "poor", "2": "mixed"},
}
T5: Settings = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_model": 8,
    "d_kv": 4,
    "d_ff": 12,
    "num_layers": 1,
    "num_heads": 2,
    "vocab_size": 13,
    "eos_token_id": 3,
    "decoder_start_token_id": 0,
    "n_positions": 16,
}
BART: Settings = {
    "model_type": "bart",
    "architectures": ["BartForConditionalGeneration"],
    "d_model": 8,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 12,
    "max_position_embeddings": 16,
    "vocab_size": 13,
    "pad_token_id": 0,
    "eos_token_id": 3,
    "decoder_start_token_id": 3,
}


def random_weights(settings: Settings, **decided: Any) -> Weights:
    """Tensors under the keys that transformers gives them, all of them random."""
    family = FAMILIES[settings["model_type"]]
    config = family.read(settings, **decided)
    rng = np.random.default_rng(0)
    ours = {name: rng.standard_normal(shape, np.float32) for name, shape in weight_shapes(config).items()}
    return to_theirs(family, config, ours)


def write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")


def write_tokenizer(folder: Path, template: str = "[CLS] $A [SEP]") -> None:
    """Whole words; padding and truncation are on, as MiniLM's file has them."""
    backend = tokenizers.Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(WORDS[:4])
    special = [(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]") if word in template]
    pair = f"{template} $B:1 [SEP]:1"  # as BERT's
    backend.post_processor = processors.TemplateProcessing(single=template, pair=pair, special_tokens=special)
    backend.enable_padding(length=9)
    backend.enable_truncation(4)
    backend.save(str(folder / "tokenizer.json"))


def make_checkpoint(folder: Path, settings: Settings = BERT, **changed: Any) -> Path:
    settings = settings | changed
    folder.mkdir()
    decided = {"num_classes": 3} if "id2label" in settings else {}
    write_json(folder / "config.json", settings)
    safetensors.numpy.save_file(random_weights(settings, **decided), folder / "model.safetensors")
    write_tokenizer(folder, "[CLS] $A [SEP]" if settings["model_type"] != "t5" else "$A [SEP]")
    return folder


def weights_of(folder: Path) -> Weights:
    return safetensors.numpy.load_file(folder / "model.safetensors")


def change_weights(folder: Path, change: Callable[[Weights], Any]) -> None:
    weights = weights_of(folder)
    changed = change(weights)
    safetensors.numpy.save_file(weights if changed is None else changed, folder / "model.safetensors")


def change_settings(folder: Path, **changed: Any) -> None:
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", settings | changed)
