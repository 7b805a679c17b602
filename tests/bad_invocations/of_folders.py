"""Folders of runs and exports, damaged or of the other kind, and outputs that are taken."""

from collections.abc import Iterator

from bad_invocations.case import Case
from bad_invocations.files import DAMAGED_RUNS


def cases() -> Iterator[Case]:
    yield from _folders()
    yield from _outputs()


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
    for name in (
        "taken",
        "full",
        "absent/x",
        "taken/x",
        "dangling",
        "reviews.csv",
        "run/config.json",
        "data/page.json",
    ):
        yield Case("outputs", ("report", "run", "--output", name))
    for flag in ("--json", "--html"):
        for name in ("taken", "full", "absent/x", "taken/x", "dangling", "pairs.jsonl", "export/config.json"):
            yield Case("outputs", ("verify", "--preset", "small", flag, name))
