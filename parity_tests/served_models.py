"""Models with random weights to export for other libraries, and the texts that they are served with."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch

from flax_transformer.config import ModelConfig, PredictionConfig, TokenizerConfig
from flax_transformer.data.special_tokens import SpecialTokens
from flax_transformer.data.tokenizer import Tokenizer, train_tokenizer
from flax_transformer.decoding.predictable import save_prediction_files
from torch_reference.interop.export import save_export
from torch_reference.nn.models import create_model

DOCS = Path(__file__).parent.parent / "docs" / "PRETRAINED.md"
TEXTS = ["forty bags of coffee", "two drums, 40 kg", "a", "coffee, coffee and drums from the long, long list of bags"]
TOKENIZER = train_tokenizer(TokenizerConfig(vocab_size=300), TEXTS * 3)
OWN = ModelConfig(
    d_model=12,
    num_heads=3,
    d_ff=29,
    num_encoder_layers=2,
    num_decoder_layers=1,
    max_length=41,
    source_vocab_size=TOKENIZER.vocab_size,
    target_vocab_size=TOKENIZER.vocab_size,
    attention_backend="xla",
)
POST_LN = {"norm_first": False, "final_norm": False}
CLASSES = ("good", "poor", "mixed")
LIMITS = PredictionConfig(30, 12)
# What it takes to be read by transformers -> the changes of the config, and the class that reads it.
SEQ2SEQ: dict[str, tuple[dict[str, Any], str]] = {
    "pre-LN": ({}, "PegasusForConditionalGeneration"),
    "pre-LN with an odd width": ({"d_model": 9}, "PegasusForConditionalGeneration"),
    "post-LN": (POST_LN | {"activation": "silu"}, "MarianMTModel"),
    "learned": (POST_LN | {"positions": "learned", "embedding_norm": True}, "BartForConditionalGeneration"),
    "learned, pre-LN": ({"positions": "learned", "embedding_norm": True}, "MBartForConditionalGeneration"),
}
# Without a tokenizer.
MODEL = dataclasses.replace(OWN, d_model=24, num_decoder_layers=2, source_vocab_size=37, target_vocab_size=37)
T5 = {"positions": "none", "relative_buckets": 32, "norm": "rms", "bias": False, "scale_attention": False}
# A table with more rows than the tokenizer has entries.
ENTRIES, ROWS = TOKENIZER.vocab_size, TOKENIZER.vocab_size + 3
WITH_UNUSED_ROWS = dataclasses.replace(
    OWN,
    **T5,
    source_vocab_size=ROWS,
    target_vocab_size=ROWS,
    gated=True,
    activation="gelu_tanh",
    tie_embeddings="inputs",
    scale_embeddings=False,
    norm_eps=1e-6,
)


def random_export(folder: Path, config: ModelConfig, limits: PredictionConfig = LIMITS) -> Path:
    """An export whose weights are all random, so that what comes out depends on what goes in."""
    model = create_model(config)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
    save_export(folder, model)
    save_prediction_files(folder, TOKENIZER, CLASSES if config.architecture == "classifier" else (), limits)
    return folder


def export_with_unused_rows(folder: Path) -> Path:
    """An export whose generator gives far more to rows without a token than to any other."""
    model: Any = create_model(WITH_UNUSED_ROWS)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
        direction = 100 * torch.randn(WITH_UNUSED_ROWS.d_model)
        model.projection.weight[ENTRIES:] = torch.stack([direction, -direction, direction])
    save_export(folder, model)
    special = SpecialTokens(TOKENIZER.pad_id, TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.unk_id, ROWS)
    tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(TOKENIZER.to_json()), special)
    save_prediction_files(folder, tokenizer, (), LIMITS)
    return folder


def padded(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    rows = TOKENIZER.encode(texts)
    lengths = np.array([len(row) for row in rows], np.int32)
    return np.array([[*row, *[TOKENIZER.pad_id] * (lengths.max() - len(row))] for row in rows], np.int32), lengths


def random_torch(config: ModelConfig, seed: int = 0) -> torch.nn.Module:
    """Norms around 1, all else around 0, and large enough that outputs depend on inputs."""
    model = create_model(config).eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for name, parameter in model.named_parameters():
            parameter.normal_(std=0.4).add_(name.endswith("norm.weight"))
    return model


def numpy_weights(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: weight.numpy() for name, weight in model.state_dict().items()}


def example(page: Path, name: str) -> str:
    """The block of Python that stands behind the mark of this name."""
    blocks = re.findall(rf"<!-- {name}-example -->\n```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 1
    return blocks[0]
