"""Words, numbers and choices of a command; devices, processes and sizes that cannot be."""

from collections.abc import Iterator

from bad_invocations.case import TRAIN, Case

WHOLE_FLAGS = [
    *(f"--model.{name}" for name in ("d-model", "num-heads", "d-ff", "num-encoder-layers", "max-length")),
    *(f"--batch.{name}" for name in ("size", "max-source-length", "max-target-length", "buckets")),
    *(f"--{name}" for name in ("epochs", "gradient-accumulation-steps", "evaluations-per-epoch", "log-every")),
    *("--max-skipped", "--tokenizer.vocab-size", "--mesh.fsdp", "--mesh.model"),
]
RATE_FLAGS = ["--model.dropout", "--model.attention-dropout", "--batch.word-dropout", "--label-smoothing"]
RATE_FLAGS += ["--batch.bpe-dropout", "--optimizer.beta1", "--optimizer.beta2"]
POSITIVE_FLAGS = ["--optimizer.learning-rate", "--optimizer.weight-decay", "--optimizer.max-grad-norm"]
POSITIVE_FLAGS += ["--model.norm-eps", "--optimizer.eps"]
CHOICE_FLAGS = [
    *(f"--model.{name}" for name in ("activation", "positions", "pooling", "initialization", "attention-backend")),
    *("--model.remat", "--model.dtype", "--model.param-dtype", "--tokenizer.kind", "--optimizer.name"),
    *("--optimizer.schedule", "--batch.long", "--preset"),
]
SWITCHES = ["--model.norm-first", "--model.bias", "--tokenizer.lowercase", "--deterministic"]


def cases() -> Iterator[Case]:
    yield from _words()
    yield from _config_flags()
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
        ("--tokenizer.kind", "wordpiece", "--batch.bpe-dropout", "0.1"),
        ("--batch.target-bpe-dropout", "0.1"),
    ):
        yield Case("what does not go together", (*TRAIN, *arguments))


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
