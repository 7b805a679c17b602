"""What the commands name: good runs and exports, damaged copies of them, data files and schemas of all kinds."""

import contextlib
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

from random_exports import save_model

from bad_invocations.case import TINY
from bad_invocations.more_files import write_more
from flax_transformer.cli import main as cli


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
        save_model(Path("masked"), "masked")
        save_model(Path("tags"), "classifier", thresholds=(0.4, 0.5, 0.6))
        _write_data_files()
        _write_damaged_runs()
        Path("full/folder").mkdir(parents=True)
        write("full/file", "precious")
        Path("empty_folder").mkdir()
        Path("dangling").symlink_to("nowhere")
        write("taken", "precious")
        write("taken.jsonl.meta.json", '{"precious": 1}')
        _write_schemas()
        write_more(Path())


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
    "two_line_ends.csv": "text,label\ra,x\nb,y\n",
    "quoted.tsv": '"text"\t"label"\n"a"\t"x"\n"b"\t"y"\n',
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
    "sheet.csv": b"PK\x03\x04\x14\x00\x06\x00\x08\x00",
    "old_sheet.csv": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "json.csv": '{"text": "a", "label": "x"}\n',
    "page.json": "<!DOCTYPE html>\n<html></html>\n",
    "pointer.parquet": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
    "preamble.csv": "Report of 2024\n\ntext;label\na;x\nb;y\n",
    "twice.jsonl": '{"text": "a", "label": "x", "label": "y"}\n{"text": "b", "label": "y", "label": "x"}\n',
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
