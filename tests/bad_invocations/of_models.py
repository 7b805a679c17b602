"""Models from elsewhere and for others: imports, exports, starts of a training, verification, plans, the doctor."""

from collections.abc import Iterator

from bad_invocations.case import TINY, TRAIN, Case
from bad_invocations.more_files import CHECKPOINTS, IMPORTS


def cases() -> Iterator[Case]:
    yield from _imports()
    yield from _exports()
    yield from _starts()
    yield from _verifications()
    yield from _doctor()
    yield from _plans()


def _imports() -> Iterator[Case]:
    for name in CHECKPOINTS:
        yield Case("import", ("import", f"checkpoints/{name}", "new"))
    for arguments in (
        ("checkpoints/pickled", "new"),
        ("run", "new"),
        ("export", "new"),
        ("taken", "new"),
        ("empty_folder", "new"),
        ("dangling", "new"),
        ("", "new"),
        ("checkpoints/whole",),
        ("checkpoints/whole", "taken"),
        ("checkpoints/whole", "full"),
        ("checkpoints/whole", "checkpoints/whole"),
        ("checkpoints/whole", "new", "more"),
        ("checkpoints/whole", "new", "--revision", "main"),
        ("checkpoints/whole", "new", "--bare", "maybe"),
        ("a/b/c", "new"),
        ("../whole?", "new"),
    ):
        yield Case("import", ("import", *arguments))
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": "hf"}
    yield Case("import", ("import", "google-bert/bert-base-uncased", "new"), environment=offline, apart=True)
    for name in IMPORTS:
        folder = f"damaged/imports/{name}"
        export = ("export", folder, "new", "--format", "hf")
        yield Case("import", ("predict", folder, "x") if "special" in name else export)


def _exports() -> Iterator[Case]:
    for arguments in (
        ("export", "new", "--format", "horse"),
        ("export", "new", "--format", "hf"),
        ("export", "new", "--format", "ctranslate2"),
        ("generator", "new", "--format", "ctranslate2", "--quantization", "int3"),
        ("generator", "new", "--quantization", "int8"),
        ("generator", "new", "--format", "onnx", "--quantization", "int8"),
        ("generator", "new", "--format", "hf"),
        ("masked", "new", "--format", "onnx"),
        ("masked", "new", "--format", "hf"),
        ("tags", "new", "--format", "ctranslate2"),
        ("absent", "new", "--format", "onnx"),
        ("export", "full", "--format", "onnx"),
        ("export", "taken", "--format", "hf"),
        ("damaged/exports/cut_weights", "new", "--format", "onnx"),
        ("damaged/exports/deep_config", "new", "--format", "hf"),
        ("damaged/exports/no_tokenizer", "new", "--format", "hf"),
        ("damaged/runs/broken_checkpoints", "new", "--format", "onnx"),
    ):
        yield Case("export to others", ("export", *arguments))


def _starts() -> Iterator[Case]:
    train = (*TRAIN, "--epochs", "1", "--batch.size", "8", "--batch.buckets", "1")
    for source in ("absent", "taken", "empty_folder", "full", "dangling", "", "reviews.csv", "checkpoints/whole"):
        yield Case("another start", (*train, "--pretrained", source))
    for name in ("no_config", "deep_config", "no_tokenizer", "cut_weights", "other_size", "broken_limits"):
        yield Case("another start", (*train, "--pretrained", f"damaged/exports/{name}"))
    for flags in (
        ("--pretrained", "generator"),
        ("--pretrained", "export", "--model.d-model", "32"),
        ("--pretrained", "export", "--model.positions", "learned"),
        ("--pretrained", "export", "--batch.max-source-length", "9999"),
        ("--pretrained", "damaged/runs/no_checkpoints"),
        ("--pretrained", "damaged/runs/empty_checkpoints"),
        ("--preset", "finetune"),
        ("--patience", "-1"),
        ("--patience", "x"),
        ("--frozen-layers", "-1"),
        ("--frozen-layers", "99"),
        ("--frozen-layers", "1", "--model.scan-layers"),
        ("--pretrained", "export", "--frozen-layers", "2"),
        ("--balance-classes", "maybe"),
    ):
        yield Case("another start", (*train, *flags))
    seq2seq = ("train", "seq2seq", "--data.path", "pairs.jsonl", "--run", "new", *TINY)
    yield Case("another start", (*seq2seq, "--balance-classes"))
    yield Case("another start", (*seq2seq, "--pretrained", "export"))
    yield Case("another start", ("train", "masked", "--data.path", "reviews.csv", "--run", "new", "--balance-classes"))
    yield Case("another start", ("train", "multilabel", "--run", "run", "--resume"))


def _verifications() -> Iterator[Case]:
    for arguments in (
        ("export", "--against", "horse"),
        ("export", "--against", "ctranslate2"),
        ("export", "--against", "transformers"),
        ("export", "--against", "onnx", "--dtype", "float64"),
        ("export", "--against", "onnx", "--dtype", "bfloat16"),
        ("tags", "--against", "ctranslate2"),
        ("masked", "--against", "transformers"),
        ("masked", "--against", "onnx"),
        ("export", "--dtype", "float8"),
        ("export", "--steps", "x"),
        ("export", "--run", "run"),
        ("export", "--run", "absent"),
        ("run", "--run", "run"),
        ("damaged/imports/broken_source",),
        ("damaged/imports/list_special",),
        ("checkpoints/whole",),
    ):
        yield Case("verify", ("verify", *arguments))


def _doctor() -> Iterator[Case]:
    functions = (
        "absent",
        "",
        "needs",
        "raises",
        "leaves",
        "number",
        "nothing",
        "unknown",
        "value",
        "Crooked",
        "linear",
    )
    targets = [f"models/model.py:{function}" for function in functions]
    targets += ["absent.py:make", "models/model.py", "models", "absent", "", "taken", "empty_folder"]
    targets += ["models/syntax.py:make", "models/absent.py:make", "reviews.csv:make"]
    targets += [
        f"checkpoints/{name}"
        for name in ("no_config", "empty_config", "deep_config", "numeric_family", "text_weights", "no_weights")
    ]
    targets += ["damaged/exports/deep_config", "damaged/exports/cut_weights", "damaged/runs/no_checkpoints"]
    for target in targets:
        yield Case("doctor", ("doctor", target))
    for flags in (
        ("--kind", "horse"),
        ("--vocab-size", "x"),
        ("--horse",),
        ("--json", "taken"),
        ("--html", "taken"),
        ("--png", "taken"),
        ("--json", "absent/x"),
        ("--html", "full"),
        ("--json", "reviews.csv"),
    ):
        yield Case("doctor", ("doctor", "export", *flags))


def _plans() -> Iterator[Case]:
    for flags in (
        ("--preset", "horse"),
        ("--layers", "0"),
        ("--layers", "-1"),
        ("--batch", "0"),
        ("--length", "0"),
        ("--dropout", "2"),
        ("--dtype", "float8"),
        ("--remat", "horse"),
        ("--attention", "horse"),
        ("--json", "taken"),
        ("--json", "absent/x"),
        ("--gradient-accumulation-steps", "3"),
        ("--mesh.fsdp", "3"),
        ("--mesh.model", "0"),
    ):
        yield Case("plan", ("plan", "--topology", "v5e:2x4", *flags), apart=True)
    for topology in ("", "v5e", "v9:2x4", "v5e:horse", "v5e:0x0", "v5e:2x4x9x9"):
        yield Case("plan", ("plan", "--topology", topology), apart=True)
    for arguments in (("generate",), ("generate", "horse"), ("generate", "slope", "--horse"), ("plans", "--horse")):
        yield Case("bench", ("bench", *arguments))
