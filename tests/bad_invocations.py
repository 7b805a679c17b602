"""Hundreds of commands that cannot be right, and what becomes of each.

    python tests/bad_invocations.py [--only WORD] [--shard 1/3] [--json FILE]

None may end in a traceback, be killed, take over a minute, succeed without a word, or change a file that was there or
leave one behind. Most run within this process; those that could hang or take it down run in one of their own. Prints
the count by group and outcome, and exits with 1 if there is any of a bad kind.
"""

import argparse
import contextlib
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from random_exports import save_model

from flax_transformer.cli import main as cli

ROOT = Path(__file__).parent.parent
SECONDS = 60
GOOD = ("refused in one line", "told in the lines and at the end")
TINY = [
    *("--model.d-model", "8", "--model.num-heads", "2", "--model.d-ff", "12"),
    *("--model.num-encoder-layers", "1", "--model.num-decoder-layers", "1", "--epochs", "1"),
    *("--tokenizer.vocab-size", "300", "--batch.buckets", "1", "--batch.size", "8", "--batch.max-source-length", "16"),
]


@dataclass(frozen=True)
class Case:
    """A command, to be run in the folder that :func:`make_files` fills.

    ``apart`` runs it in a process of its own. ``told`` is for texts that have no prediction: the command succeeds, and
    says so.
    """

    group: str
    arguments: tuple[str, ...]
    stdin: bytes = b""
    environment: dict[str, str] = field(default_factory=dict)
    apart: bool = False
    told: bool = False


# Files


def make_files(folder: Path) -> None:
    """Everything that the commands name: good runs and exports, damaged copies of them, and files of all kinds."""
    with contextlib.chdir(folder):
        rows = [f"the {'good' if i % 2 else 'poor'} film {i},{'good' if i % 2 else 'poor'}" for i in range(40)]
        write("reviews.csv", "text,label\n" + "\n".join(rows) + "\n")
        write("pairs.jsonl", "".join(json.dumps({"source": f"say {i}", "target": f"{i}"}) + "\n" for i in range(40)))
        assert cli.main(["train", "classification", "--data.path", "reviews.csv", "--run", "run", *TINY]) == 0
        flags = ["--batch.max-target-length", "8"]
        assert cli.main(["train", "seq2seq", "--data.path", "pairs.jsonl", "--run", "pairs", *TINY, *flags]) == 0
        save_model(Path("export"), "classifier")
        save_model(Path("generator"), "seq2seq")
        _write_data_files()
        _write_damaged_runs()
        Path("full/folder").mkdir(parents=True)
        write("full/file", "precious")
        Path("empty_folder").mkdir()
        Path("dangling").symlink_to("nowhere")
        write("taken", "precious")
        write("taken.jsonl.meta.json", '{"precious": 1}')
        _write_schemas()


def write(name: str, content: str | bytes) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


DATA_FILES: dict[str, str | bytes] = {
    "empty.csv": "",
    "header.csv": "text,label\n",
    "one_class.csv": "text,label\na,x\nb,x\nc,x\n",
    "one_row.csv": "text,label\na,x\n",
    "no_label.csv": "text,other\na,x\nb,y\n",
    "no_text.csv": "other,label\na,x\nb,y\n",
    "twice.csv": "text,text,label\na,b,x\nc,d,y\n",
    "latin1.csv": "text,label\nschön,x\nnein,y\n".encode("latin-1"),
    "utf16_no_mark.csv": "text,label\na,x\nb,y\n".encode("utf-16-le"),
    "binary.csv": bytes(range(256)) * 4,
    "unclosed.csv": 'text,label\n"a,x\nb,y\n',
    "blank_labels.csv": "text,label\na,\nb,\nc,\n",
    "all_labels_differ.csv": "text,label\n" + "".join(f"text {i},label {i}\n" for i in range(60)),
    "broken.csv.gz": b"\x1f\x8b\x08\x00 no gzip",
    "cut.csv.gz": gzip.compress(b"text,label\n" + b"a,x\nb,y\n" * 999)[:40],
    "broken.parquet": b"PAR1 no parquet",
    "packed.parquet.gz": gzip.compress(b"PAR1"),
    "sheet.xlsx": b"PK\x03\x04",
    "archive.zip": b"PK\x03\x04",
    "broken.jsonl": "{\n{\n",
    "list.jsonl": "[1]\n[2]\n",
    "deep.jsonl": "[" * 100_000 + "\n",
    "deep_object.jsonl": '{"text":' * 100_000 + "\n",
    "no_key.jsonl": '{"a": 1}\n{"a": 2}\n',
    "numbers.jsonl": '{"text": 1, "label": "x"}\n{"text": 2, "label": "y"}\n',
    "objects.jsonl": '{"text": {"a": 1}, "label": "x"}\n{"text": {"a": 2}, "label": "y"}\n',
    "arrays.jsonl": '{"text": "a", "label": ["x"]}\n{"text": "b", "label": ["y"]}\n',
    "surrogates.jsonl": '{"text": "\\ud83d", "label": "x"}\n{"text": "\\ud83d", "label": "y"}\n',
    "surrogate_labels.jsonl": '{"text": "a", "label": "\\ud83d"}\n{"text": "b", "label": "\\ude00"}\n',
    "nulls.jsonl": '{"text": null, "label": null}\n' * 3,
    "plain.txt": "no table\n",
    "blank.txt": "\n\n  \n",
}


def _write_data_files() -> None:
    for name, content in DATA_FILES.items():
        write(f"data/{name}", content)
    Path("data/folder.csv").mkdir()
    Path("data/nowhere.csv").symlink_to("nothing")


# Name -> file in the run, and its content; None deletes it.
DAMAGED_RUNS: dict[str, tuple[str, str | bytes | None]] = {
    "no_config": ("config.json", None),
    "empty_config": ("config.json", ""),
    "list_config": ("config.json", "[]"),
    "deep_config": ("config.json", "[" * 100_000),
    "other_keys": ("config.json", '{"horse": 1}'),
    "other_task": ("config.json", '{"data": {"task": "horse"}}'),
    "no_tokenizer": ("tokenizer.json", None),
    "empty_tokenizer": ("tokenizer.json", ""),
    "deep_tokenizer": ("tokenizer.json", "[" * 100_000),
    "other_tokenizer": ("tokenizer.json", '{"version": "1.0"}'),
    "binary_tokenizer": ("tokenizer.json", b"\xff\xfe\x00"),
    "no_classes": ("classes.json", None),
    "string_classes": ("classes.json", '"good"'),
    "dict_classes": ("classes.json", '{"good": 0, "poor": 1}'),
    "short_classes": ("classes.json", '["good"]'),
    "long_classes": ("classes.json", '["good", "poor", "odd"]'),
    "swapped_classes": ("classes.json", '["poor", "good"]'),
    "deep_classes": ("classes.json", "[" * 100_000),
    "broken_limits": ("prediction.json", "{"),
}


def _write_damaged_runs() -> None:
    for name, (file, content) in DAMAGED_RUNS.items():
        for kind, source in (("runs", "run"), ("exports", "export")):
            folder = Path("damaged", kind, name)
            shutil.copytree(source, folder)
            (folder / file).unlink()
            if content is not None:
                write(str(folder / file), content)
    for name in ("no_checkpoints", "file_checkpoints", "empty_checkpoints", "broken_checkpoints"):
        folder = Path("damaged", "runs", name)
        shutil.copytree("run", folder)
        checkpoints = folder / "checkpoints"
        if name == "broken_checkpoints":
            for file in checkpoints.rglob("*"):
                if file.is_file():
                    file.write_bytes(b"broken")
            continue
        shutil.rmtree(checkpoints)
        if name == "file_checkpoints":
            write(str(checkpoints), "no folder")
        elif name == "empty_checkpoints":
            checkpoints.mkdir()
    for name, content in {"empty": b"", "cut": None, "text": b"no weights"}.items():
        folder = Path("damaged", "exports", f"{name}_weights")
        shutil.copytree("export", folder)
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-50] if content is None else content)
    shutil.copytree("export", "damaged/exports/other_size")
    config = Path("damaged/exports/other_size/config.json")
    config.write_text(config.read_text(encoding="utf-8").replace('"d_ff": 16', '"d_ff": 32'), encoding="utf-8")


def _of_x(**values: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": values}, "required": ["x"]}


SCHEMAS: dict[str, Any] = {
    "horse": {"type": "horse"},
    "list": [],
    "number": 7,
    "circle": {"$ref": "#"},
    "pattern": _of_x(type="string", pattern="(["),
    "exponential": _of_x(type="string", pattern="(a|b)*a(a|b){24}"),
    "exponential2": _of_x(type="string", pattern="([a-z]{1,500}){1,500}"),
    "max_length": _of_x(type="string", maxLength=10**9),
    "max_items": _of_x(type="array", items={"type": "integer"}, maxItems=10**6),
    "min_items": _of_x(type="array", items={"type": "integer"}, minItems=10**12),
    "reversed": _of_x(type="string", minLength=5, maxLength=2),
    "long_output": _of_x(type="string", minLength=500),
}


def _write_schemas() -> None:
    for name, schema in SCHEMAS.items():
        write(f"schemas/{name}.json", json.dumps(schema))
    write("schemas/deep.json", "[" * 100_000)
    write("schemas/deep_object.json", '{"properties":' * 100_000)
    write("schemas/broken.json", "{")
    write("schemas/good.json", json.dumps(_of_x(enum=["a", "b"])))


# Cases

WHOLE_FLAGS = [
    *(f"--model.{name}" for name in ("d-model", "num-heads", "d-ff", "num-encoder-layers", "max-length")),
    *(f"--batch.{name}" for name in ("size", "max-source-length", "max-target-length", "buckets")),
    *(f"--{name}" for name in ("epochs", "gradient-accumulation-steps", "evaluations-per-epoch", "log-every")),
    *("--max-skipped", "--tokenizer.vocab-size", "--mesh.fsdp", "--mesh.model"),
]
RATE_FLAGS = ["--model.dropout", "--model.attention-dropout", "--batch.word-dropout", "--label-smoothing"]
RATE_FLAGS += ["--optimizer.beta1", "--optimizer.beta2"]
POSITIVE_FLAGS = ["--optimizer.learning-rate", "--optimizer.weight-decay", "--optimizer.max-grad-norm"]
POSITIVE_FLAGS += ["--model.norm-eps", "--optimizer.eps"]
CHOICE_FLAGS = [
    *(f"--model.{name}" for name in ("activation", "positions", "pooling", "initialization", "attention-backend")),
    *("--model.remat", "--model.dtype", "--model.param-dtype", "--tokenizer.kind", "--optimizer.name"),
    *("--optimizer.schedule", "--batch.long", "--preset"),
]
SWITCHES = ["--model.norm-first", "--model.bias", "--tokenizer.lowercase", "--deterministic"]
TRAIN = ("train", "classification", "--data.path", "reviews.csv", "--run", "new")


def cases() -> Iterator[Case]:
    yield from _words()
    yield from _config_flags()
    yield from _data_files()
    yield from _texts_alone()
    yield from _folders()
    yield from _outputs()
    yield from _inputs()
    yield from _generation()
    yield from _processes()
    yield from _environments()
    yield from _sizes()


def _words() -> Iterator[Case]:
    for arguments in (
        *(["trian"], ["Train"], [""], ["--train"], ["train", "imbd"], ["train", "Classification"], ["train", ""]),
        *(["train", "--run", "new"], ["predict", "--file", "reviews.csv", "run"], ["evaluate", "--split", "test"]),
        *(["evaluate", "run", "more"], ["export", "run"], ["export", "run", "new", "more"], ["verify", "a", "b"]),
        *(["verify", "run", "--preset", "small"], ["verify", "--preset", "horse"], ["verify", "--preset", "small"]),
        *(["verify", "run", "--run", "nope"], ["verify", "--preset", "small", "--run", "nope"], ["bench", "horse"]),
        *(["bench", "train", "--horse"], ["bench", "train", "--rounds", "x"], ["plan", "--horse"], ["plan", "v5e:2x4"]),
        *(
            ["plan", "--topology"],
            ["plan", "--topology", "v5e:2x4", "--batch", "x"],
            ["evaluate", "run", "--split", "x"],
        ),
        *(["predict", "run", "--horse"], ["export", "--run", "run", "new"], ["train", "snips"], ["train", "seq2seq"]),
        *(["train", "classification"], ["train", "snips", "--data.path", "reviews.csv"], ["predict", "--"]),
    ):
        steps = ["--steps", "0"] if arguments == ["verify", "--preset", "small"] else []
        yield Case("commands and words", (*arguments, *steps))


def _config_flags() -> Iterator[Case]:
    for flag in WHOLE_FLAGS:
        for value in ("0", "1000000000000", "x"):
            yield Case("numbers of the config", (*TRAIN, flag, value))
    for flag in RATE_FLAGS:
        for value in ("1", "nan"):
            yield Case("numbers of the config", (*TRAIN, flag, value))
    for flag in POSITIVE_FLAGS:
        for value in ("-1", "inf"):
            yield Case("numbers of the config", (*TRAIN, flag, value))
    for arguments in (("--optimizer.eps", "0"), ("--optimizer.eps", "1e-50"), ("--seed", "-1"), ("--epochs", "1" * 30)):
        yield Case("numbers of the config", (*TRAIN, *arguments))
    for flag in CHOICE_FLAGS:
        yield Case("choices of the config", (*TRAIN, flag, "horse"))
    for flag in SWITCHES:
        yield Case("choices of the config", (*TRAIN, flag, "maybe"))
    for arguments in (
        ("--model.num-heads", "3"),
        ("--model.max-length", "8"),
        ("--gradient-accumulation-steps", "5"),
        ("--mesh.fsdp", "3"),
        ("--mesh.data", "64"),
        ("--model.dtype", "float64"),
        ("--model.param-dtype", "float64"),
        ("--model.attention-backend", "cudnn"),
        ("--model.attention-backend", "flash"),
        ("--model.d-model", "6", "--model.num-heads", "2", "--model.positions", "rope"),
        ("--tokenizer.path", "absent.json"),
        ("--tokenizer.path", "taken"),
        ("--tokenizer.path", "schemas/deep.json"),
        ("--tokenizer.path", "empty_folder"),
        ("--tokenizer.kind", "wordpiece", "--tokenizer.vocab-size", "299"),
    ):
        yield Case("what does not go together", (*TRAIN, *arguments))


def _data_files() -> Iterator[Case]:
    names = [f"data/{name}" for name in DATA_FILES] + [
        "data/folder.csv",
        "data/nowhere.csv",
        "absent.csv",
        "empty_folder",
    ]
    for name in names:
        yield Case("files to learn from", ("train", "classification", "--data.path", name, "--run", "new", *TINY))
    for name in ("data/empty.csv", "data/no_label.csv", "data/deep.jsonl", "absent.csv", "data/all_labels_differ.csv"):
        for flag in ("--data.validation-path", "--data.test-path"):
            yield Case("files to learn from", (*TRAIN, *TINY, flag, name))
    for column in ("absent", "", "text.x", "label"):
        if column != "label":
            yield Case("files to learn from", (*TRAIN, *TINY, "--data.text-column", column))
        if column != "label":
            yield Case("files to learn from", (*TRAIN, *TINY, "--data.label-column", column))
    for value in ("ab", '"', ""):
        yield Case("files to learn from", (*TRAIN, *TINY, "--data.delimiter", value))
    for value in ("horse", "utf-99", ""):
        yield Case("files to learn from", (*TRAIN, *TINY, "--data.encoding", value))


def _texts_alone() -> Iterator[Case]:
    masked = ("train", "masked", "--run", "new", *TINY)
    for name in ("empty.csv", "no_text.csv", "one_row.csv", "binary.csv", "plain.txt", "blank.txt", "broken.jsonl"):
        yield Case("texts without labels", (*masked, "--data.path", f"data/{name}"))
    for name in ("nulls.jsonl", "objects.jsonl", "surrogates.jsonl", "sheet.xlsx", "nowhere.csv", "none.csv"):
        yield Case("texts without labels", (*masked, "--data.path", f"data/{name}"))
    reviews = (*masked, "--data.path", "reviews.csv")
    for flags in (
        ("--data.of", "imdb"),
        ("--data.of", "imdb", "--data.test-path", "reviews.csv"),
        ("--data.of", "horse"),
        ("--data.of", "classification", "--data.label-column", "horse"),
        ("--data.text-column", "horse"),
        ("--model.embedding-width", "4"),
        ("--model.head-hidden", "tanh"),
        ("--pretrained", "run"),
        ("--pretrained", "export"),
    ):
        yield Case("texts without labels", (*reviews, *flags))


def _folders() -> Iterator[Case]:
    damaged = [f"damaged/runs/{name}" for name in DAMAGED_RUNS]
    damaged += [f"damaged/runs/{name}_checkpoints" for name in ("no", "file", "empty", "broken")]
    others = ["absent", "taken", "empty_folder", "full", "dangling", "n" * 300, "reviews.csv"]
    for folder in [*damaged, *others]:
        yield Case("folders of runs", ("predict", folder, "the film"))
        yield Case("folders of runs", ("export", folder, "new"))
    for folder in [*damaged[::3], *others]:
        yield Case("folders of runs", ("evaluate", folder))
    for folder in ["damaged/runs/empty_config", "damaged/runs/no_tokenizer", *others]:
        yield Case("folders of runs", ("report", folder))
    for folder in damaged[:19]:
        train = ("train", "classification", "--run", folder, "--resume")
        yield Case("folders of runs", train)
    exports = [f"damaged/exports/{name}" for name in DAMAGED_RUNS]
    exports += [f"damaged/exports/{name}" for name in ("empty_weights", "cut_weights", "text_weights", "other_size")]
    for folder in exports:
        yield Case("folders of exports", ("predict", folder, "the film"))
    for arguments in (
        ("evaluate", "export"),
        ("report", "export"),
        ("export", "export", "new"),
        ("train", "classification", "--run", "export", "--resume"),
        ("train", "imdb", "--run", "run", "--resume"),
        ("train", "classification", "--run", "run", "--resume", "--seed", "5"),
        ("train", "classification", "--run", "run", "--resume", "--model.d-model", "16"),
        ("train", "classification", "--run", "absent", "--resume"),
        ("train", "classification", "--run", "empty_folder", "--resume"),
        ("train", "classification", "--run", "run", "--resume", "maybe"),
        ("verify", "absent"),
        ("verify", "empty_folder"),
        ("verify", "damaged/exports/cut_weights"),
        ("verify", "damaged/exports/deep_config"),
    ):
        yield Case("one kind of folder for the other", arguments)


def _outputs() -> Iterator[Case]:
    names = ["taken", "full", "full/file", "empty_folder", "dangling", "absent/x", "taken/x", "taken/x/y", "n" * 300]
    names += ["/proc/x", "/dev/null/x", "reviews.csv", "taken.jsonl"]
    for name in names:
        yield Case("outputs", ("predict", "export", "the film", "--output", name))
    for name in ("taken", "full", "empty_folder", "dangling", "reviews.csv", "taken/x", "n" * 300, "absent/x"):
        yield Case("outputs", ("predict", "export", "the film", "--resume", "--output", name))
    for name in ("taken", "full", "dangling", "taken/x", "taken/x/y", "n" * 300, "/proc/x/y", "run", "reviews.csv"):
        yield Case("outputs", ("export", "run", name))
        yield Case("outputs", ("train", "classification", "--data.path", "reviews.csv", "--run", name))
    for name in ("taken", "full", "absent/x", "taken/x", "dangling", "reviews.csv"):
        yield Case("outputs", ("report", "run", "--output", name))
    for flag in ("--json", "--html"):
        for name in ("taken", "full", "absent/x", "taken/x", "dangling"):
            yield Case("outputs", ("verify", "--preset", "small", flag, name))


def _inputs() -> Iterator[Case]:
    for name in (
        "absent.csv",
        "empty_folder",
        "data/empty.csv",
        "data/no_text.csv",
        "data/latin1.csv",
        "data/binary.csv",
    ):
        yield Case("texts to predict for", ("predict", "export", "--file", name))
    for name in (
        "data/broken.csv.gz",
        "data/cut.csv.gz",
        "data/broken.parquet",
        "data/sheet.xlsx",
        "data/unclosed.csv",
    ):
        yield Case("texts to predict for", ("predict", "export", "--file", name))
    for name in ("data/utf16_no_mark.csv", "data/packed.parquet.gz", "data/archive.zip", "data/twice.csv", "dangling"):
        yield Case("texts to predict for", ("predict", "export", "--file", name))
    for flags in (
        ("--column", "absent"),
        ("--keep", "absent"),
        ("--keep", "row"),
        ("--delimiter", "ab"),
        ("--encoding", "horse"),
        ("--strict", "--column", "absent"),
        ("--long", "horse"),
        ("--batch-size", "0"),
        ("--batch-size", "x"),
        ("--top", "0"),
        ("--top", "x"),
        ("--resume",),
    ):
        yield Case("texts to predict for", ("predict", "export", "--file", "reviews.csv", *flags))
    yield Case("texts to predict for", ("predict", "export", "x", "--file", "reviews.csv"))
    yield Case("texts to predict for", ("predict", "export", "x", "--keep", "label"))
    yield Case("texts to predict for", ("predict", "export", "", "--strict"))
    yield Case("texts to predict for", ("predict", "generator", "loud " * 99, "--strict"))
    yield Case("texts to predict for", ("predict", "generator", "loud " * 99, "--long", "error"))
    for stdin in (b"", b"\xff\xfe", b"\x00\x01\x02", "schön".encode("latin-1"), b"a\nb\n\xc3\n", b"\xef\xbb\xbf"):
        yield Case("standard input", ("predict", "export"), stdin=stdin, apart=True)
    for name in (
        "blank.txt",
        "broken.jsonl",
        "list.jsonl",
        "deep.jsonl",
        "no_key.jsonl",
        "numbers.jsonl",
        "nulls.jsonl",
    ):
        told = name != "no_key.jsonl"
        yield Case("rows without a text", ("predict", "export", "--file", f"data/{name}"), told=told)
    for name in ("objects.jsonl", "surrogates.jsonl", "deep_object.jsonl"):
        yield Case("rows without a text", ("predict", "export", "--file", f"data/{name}"), told=True)
    for text in ("", "  ", "\n", "\ud83d"):
        yield Case("rows without a text", ("predict", "export", text), told=True)
    yield Case("rows without a text", ("predict", "generator", "loud " * 99), told=True)


def _generation() -> Iterator[Case]:
    for flags in (
        ("--max-new-tokens", "0"),
        ("--max-new-tokens", "65"),
        ("--max-new-tokens", "1000000000000"),
        ("--min-new-tokens", "-1"),
        ("--min-new-tokens", "64"),
        ("--strategy", "horse"),
        ("--strategy", "beam", "--beam-width", "0"),
        ("--strategy", "beam", "--beam-width", "1000000000000"),
        ("--strategy", "beam", "--n-best", "5"),
        ("--n-best", "2"),
        ("--temperature", "0"),
        ("--temperature", "nan"),
        ("--top-k", "-1"),
        ("--top-k", "1000000"),
        ("--top-p", "0"),
        ("--top-p", "1.1"),
        ("--top-p", "nan"),
        ("--repetition-penalty", "0"),
        ("--repetition-penalty", "inf"),
        ("--length-alpha", "-1"),
        ("--prefix", "999999"),
        ("--prefix", "-1"),
        ("--prefix", "x"),
        ("--seed", "-1"),
        ("--json",),
        ("--top", "2"),
    ):
        yield Case("how to generate", ("predict", "generator", "the film", *flags))
    for flags in (("--json",), ("--strategy", "beam"), ("--max-new-tokens", "3"), ("--schema", "schemas/good.json")):
        yield Case("how to generate", ("predict", "export", "the film", *flags))
    for name in (*SCHEMAS, "deep", "deep_object", "broken", "absent"):
        yield Case("schemas", ("predict", "generator", "x", "--schema", f"schemas/{name}.json"), apart=True)


def _processes() -> Iterator[Case]:
    address, count, number = (f"--processes.{name}" for name in ("coordinator-address", "num-processes", "process-id"))
    for flags in (
        (count, "2", number, "1"),
        (count, "2"),
        (number, "0"),
        (address, "localhost"),
        (address, ""),
        (address, ":1"),
        (address, "a:x"),
        (address, "a:99999"),
        (address, "a:1"),
        (address, "a:1", count, "2"),
        (address, "a:1", count, "2", number, "2"),
        (address, "a:1", count, "0", number, "0"),
        (address, "auto", number, "0"),
        (address, "a:1", count, "x", number, "0"),
    ):
        yield Case("processes", (*TRAIN, *flags))


def _environments() -> Iterator[Case]:
    for platform in ("cuda", "tpu", "horse", "cpu,horse"):
        environment = {"JAX_PLATFORMS": platform}
        for arguments in (TRAIN, ("predict", "export", "the film"), ("evaluate", "run"), ("export", "run", "new")):
            yield Case("environments", arguments, environment=environment, apart=True)
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": "hf"}
    for task in ("imdb", "multi30k"):
        yield Case("environments", ("train", task, "--run", "new"), environment=offline, apart=True)
    encoding = {"PYTHONIOENCODING": "cp1252"}
    yield Case("environments", ("predict", "export", "日本", "--column", "日本"), environment=encoding, apart=True)


def _sizes() -> Iterator[Case]:
    """Of which the config alone does not know that they are too large."""
    for flags in (
        ("--model.d-model", "2097152"),
        ("--model.d-ff", "2147483647"),
        ("--model.num-encoder-layers", "1000", "--model.d-model", "16384"),
        ("--model.max-length", "2147483647"),
        ("--model.max-length", "2147483647", "--model.positions", "rope"),
        ("--batch.size", "1048576", "--model.d-model", "16384"),
        ("--epochs", "2147483647"),
        ("--epochs", "1000000000"),
    ):
        yield Case("sizes", (*TRAIN, "--tokenizer.vocab-size", "300", *flags), apart=True)


# Running them


class Hang(BaseException):
    """The time is over."""


@dataclass(frozen=True)
class Outcome:
    kind: str
    seconds: float
    said: str


def run(case: Case, folder: Path) -> Outcome:
    before = snapshot(folder)
    start = time.monotonic()
    code, said, out = _run_apart(case, folder) if case.apart else _run_here(case, folder)
    seconds = time.monotonic() - start
    kind = _kind(case, code, said, out, seconds)
    after = snapshot(folder)
    for path in sorted(after.keys() - before.keys(), reverse=True):  # or the next command would find it
        shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()
    if after != before and kind in GOOD:
        changed = sorted(str(path) for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        return Outcome("CHANGED FILES", seconds, f"{changed[:3]} {said}")
    return Outcome(kind, seconds, said)


def snapshot(folder: Path) -> dict[Path, tuple[int, int]]:
    files = {path.relative_to(folder): path.lstat() for path in folder.rglob("*") if "hf" not in path.parts}
    return {path: (status.st_size, status.st_mtime_ns) for path, status in files.items()}


def _kind(case: Case, code: int | None, said: str, out: str, seconds: float) -> str:
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("warning: ")]
    if code is None:
        return "HANG"
    if "Traceback (most recent call last)" in said + out:
        return "TRACEBACK"
    if code < 0 or code >= 128:
        return "KILLED"
    if seconds > SECONDS:
        return "OVER A MINUTE"
    if code == 0:
        return GOOD[1] if case.told and "no prediction" in said else "SUCCEEDED"
    if len(lines) == 1 and lines[0].startswith("error: "):
        return GOOD[0]
    return "SEVERAL LINES"


def _run_here(case: Case, folder: Path) -> tuple[int | None, str, str]:
    def end(*_: Any) -> None:
        raise Hang

    out, error = io.StringIO(), io.StringIO()
    previous = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                code = cli.main(list(case.arguments))
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
            except Hang:
                code = None
            except Exception:  # a traceback, in the shell
                traceback.print_exc(file=error)
                code = 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    return code, error.getvalue(), out.getvalue()


def _run_apart(case: Case, folder: Path) -> tuple[int | None, str, str]:
    command = [sys.executable, "-m", "flax_transformer", *case.arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | case.environment
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, error = process.communicate(case.stdin, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return None, "", ""
    return process.returncode, error.decode("utf-8", "replace"), out.decode("utf-8", "replace")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="groups whose name holds this word")
    parser.add_argument("--shard", default="1/1", help="2/3: the second of three shares, to be run at a time")
    parser.add_argument("--json", type=Path, help="file for every command, its outcome and what it said")
    flags = parser.parse_args()
    shard, shards = map(int, flags.shard.split("/"))
    chosen = [case for case in cases() if flags.only in case.group][shard - 1 :: shards]
    records = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        make_files(folder)
        for case in chosen:
            outcome = run(case, folder)
            records.append((case, outcome))
            if outcome.kind not in GOOD:
                shown = " ".join(argument[:40] for argument in case.arguments)
                print(f"{outcome.kind} ({outcome.seconds:.0f} s): {shown}\n    {outcome.said[-1500:]}", flush=True)
    print(table([(case.group, outcome.kind) for case, outcome in records]))
    slowest = max(outcome.seconds for _, outcome in records)
    print(f"{len(records)} commands; the slowest took {slowest:.0f} s")
    if flags.json:
        lines = [{"arguments": c.arguments, "group": c.group, **vars(outcome)} for c, outcome in records]
        flags.json.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    return int(any(outcome.kind not in GOOD for _, outcome in records))


def table(outcomes: list[tuple[str, str]]) -> str:
    """The count of each outcome in each group, as Markdown."""
    kinds = [*GOOD, *sorted({kind for _, kind in outcomes} - set(GOOD))]
    lines = ["| | " + " | ".join(kinds) + " |", "|---|" + "---:|" * len(kinds)]
    for group in [*dict.fromkeys(group for group, _ in outcomes), "all"]:
        counts = Counter(kind for name, kind in outcomes if group in (name, "all"))
        lines.append(f"| {group} | " + " | ".join(str(counts[kind]) for kind in kinds) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
