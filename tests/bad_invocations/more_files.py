"""What the newer commands name: files of several labels, checkpoints of transformers, models for the doctor."""

import json
import shutil
from pathlib import Path

from checkpoints import make_checkpoint

_ROWS = [f"text {i},{i % 2},{i // 2 % 2}" for i in range(40)]
LABEL_FILES: dict[str, str] = {
    "two_separators.csv": "text,labels\n" + "one,a|b\ntwo,c;d\n" * 9,
    "comma.csv": 'text,labels\none,"Billing, other"\ntwo,"Delivery, late"\n',
    "no_labels.csv": "text,labels\n" + "".join(f"text {i},\n" for i in range(20)),
    "all_differ.csv": "text,labels\n" + "".join(f"text {i},label {i}|tag {i}\n" for i in range(40)),
    "flags_as_labels.csv": "text,labels\n" + "".join(f"text {i},{i % 2}\n" for i in range(40)),
    "one_hot.csv": "text,labels\n" + 'a,"[1, 0, 0]"\nb,"[0, 1, 1]"\n' * 9,
    "broken_lists.csv": "text,labels\n" + 'a,"[x, y]"\nb,"[z]"\nc,"[1]"\n' * 3,
    "yes_no.csv": "text,toxic,insult\n" + "a,yes,no\nb,no,no\n" * 9,
    "minus.csv": "text,toxic,insult\n" + "a,-1,-1\nb,-1,-1\n" * 9,
    "blanks.csv": "text,toxic,insult\n" + "a,1,\nb,,1\n" * 9,
    "zeros.csv": "text,toxic,insult\n" + "".join(f"text {i},0,0\n" for i in range(20)),
    "one_text.csv": "text,labels\na,x|y\n",
    "flags.csv": "\n".join(["text,toxic,insult", *_ROWS]) + "\n",
    "nested.jsonl": '{"text": "a", "labels": [["x"]]}\n{"text": "b", "labels": [["y"]]}\n',
    "objects.jsonl": '{"text": "a", "labels": {"x": 1}}\n{"text": "b", "labels": {"y": 1}}\n',
    "no_key.jsonl": '{"text": "a", "tags": ["x"]}\n{"text": "b", "tags": ["y"]}\n',
    "surrogates.jsonl": '{"text": "a", "labels": "\\ud83d"}\n{"text": "b", "labels": "\\ude00"}\n',
    "good.csv": "text,labels\n" + "".join(f"text {i},{'|'.join('ab'[: i % 3])}\n" for i in range(40)),
}

# Name -> file in a checkpoint of transformers, and its content; None deletes it, a dict changes settings.
CHECKPOINTS: dict[str, tuple[str, str | bytes | dict | None]] = {
    "no_config": ("config.json", None),
    "empty_config": ("config.json", ""),
    "list_config": ("config.json", "[]"),
    "deep_config": ("config.json", "[" * 100_000),
    "binary_config": ("config.json", b"\xff\xfe\x00"),
    "other_family": ("config.json", {"model_type": "gpt2"}),
    "numeric_family": ("config.json", {"model_type": 7}),
    "wide": ("config.json", {"hidden_size": 16}),
    "text_width": ("config.json", {"hidden_size": "x"}),
    "negative_width": ("config.json", {"hidden_size": -8}),
    "null_width": ("config.json", {"hidden_size": None}),
    "no_heads": ("config.json", {"num_attention_heads": 0}),
    "huge": ("config.json", {"hidden_size": 2**40}),
    "many_layers": ("config.json", {"num_hidden_layers": 10**9}),
    "odd_activation": ("config.json", {"hidden_act": "horse"}),
    "quantized": ("config.json", {"quantization_config": {"quant_method": "gptq"}}),
    "odd_quantization": ("config.json", {"quantization_config": "gptq"}),
    "odd_problem": ("config.json", {"problem_type": "horse"}),
    "regression": ("config.json", {"problem_type": "regression"}),
    "odd_labels": ("config.json", {"id2label": {"x": "good", "y": "poor", "z": "mixed"}}),
    "labels_with_a_gap": ("config.json", {"id2label": {"0": "good", "1": "poor", "3": "mixed"}}),
    "labels_below_0": ("config.json", {"id2label": {"-1": "good", "0": "poor", "1": "mixed"}}),
    "list_of_labels": ("config.json", {"id2label": ["good", "poor", "mixed"]}),
    "text_architectures": ("config.json", {"architectures": "BertModel"}),
    "decoder": ("config.json", {"is_decoder": True}),
    "no_weights": ("model.safetensors", None),
    "empty_weights": ("model.safetensors", b""),
    "text_weights": ("model.safetensors", b"no weights"),
    "no_tokenizer": ("tokenizer.json", None),
    "deep_tokenizer": ("tokenizer.json", "[" * 100_000),
    "other_tokenizer": ("tokenizer.json", '{"version": "1.0"}'),
}
# Name -> file in an import, and its content.
IMPORTS: dict[str, tuple[str, str]] = {
    "broken_source": ("source.json", "{"),
    "list_source": ("source.json", "[]"),
    "broken_special": ("special_tokens.json", "{"),
    "list_special": ("special_tokens.json", "[]"),
    "odd_special": ("special_tokens.json", '{"pad_id": "x"}'),
}
MODELS = """
import torch

class Crooked:
    pass

def needs(size): return torch.nn.Linear(2, 2)
def raises(): raise ValueError("no model today")
def leaves(): raise SystemExit(3)
def number(): return 7
def nothing(): return None
def linear(): return torch.nn.Linear(2, 2)
def unknown(): return {"model": torch.nn.Linear(2, 2), "horse": 1}
value = 7
"""


def write_more(folder: Path) -> None:
    """Into a folder that has an export already."""
    for name, content in LABEL_FILES.items():
        _write(folder / "labels" / name, content)
    (folder / "checkpoints").mkdir()
    whole = make_checkpoint(folder / "checkpoints" / "whole")
    for name, (file, content) in CHECKPOINTS.items():
        shutil.copytree(whole, folder / "checkpoints" / name)
        _damage(folder / "checkpoints" / name / file, content)
    pickled = shutil.copytree(whole, folder / "checkpoints" / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    for name, (file, content) in IMPORTS.items():
        shutil.copytree(folder / "export", folder / "damaged" / "imports" / name)
        _write(folder / "damaged" / "imports" / name / file, content)
    for name, content in {"model.py": MODELS, "syntax.py": "def (", "absent.py": "import horse_of_troy\n"}.items():
        _write(folder / "models" / name, content)


def _damage(path: Path, content: str | bytes | dict | None) -> None:
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text(encoding="utf-8")) | content)
    path.unlink()
    if content is not None:
        _write(path, content)


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
