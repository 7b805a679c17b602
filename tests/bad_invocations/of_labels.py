"""Texts with several labels, and what predictions can be asked for: thresholds, vectors, reviews."""

from collections.abc import Iterator

from bad_invocations.case import TINY, Case
from bad_invocations.more_files import LABEL_FILES

TRAIN = ("train", "multilabel", "--run", "new", *TINY)
GOOD = ("--data.path", "labels/good.csv")


def cases() -> Iterator[Case]:
    yield from _files()
    yield from _flags()
    yield from _predictions()


def _files() -> Iterator[Case]:
    columns = ("--data.label-columns", "toxic", "insult")
    for name in LABEL_FILES:
        if name in ("yes_no.csv", "minus.csv", "blanks.csv", "zeros.csv"):
            yield Case("several labels", (*TRAIN, "--data.path", f"labels/{name}", *columns))
        elif name not in ("good.csv", "flags.csv"):
            yield Case("several labels", (*TRAIN, "--data.path", f"labels/{name}"))
    for name in ("data/empty.csv", "data/header.csv", "data/unclosed.csv", "data/latin1.csv", "absent.csv"):
        yield Case("several labels", (*TRAIN, "--data.path", name))
    for flag in ("--data.validation-path", "--data.test-path"):
        yield Case("several labels", (*TRAIN, *GOOD, flag, "labels/two_separators.csv"))


def _flags() -> Iterator[Case]:
    for flags in (
        ("--data.label-separator", ""),
        ("--data.label-column", "horse"),
        ("--data.label-columns", "horse"),
        ("--data.label-columns", "text"),
        ("--data.label-columns", "labels"),
        ("--data.label-columns", "a", "a"),
        ("--data.label-columns", "a", "--data.label-separator", ";"),
        ("--data.label-columns", "a", "--data.label-column", "b"),
        ("--data.text-column", "horse"),
        ("--label-smoothing", "1"),
        ("--model.num-classes", "3"),
        ("--batch.max-target-length", "x"),
    ):
        yield Case("several labels", (*TRAIN, *GOOD, *flags))
    yield Case("several labels", (*TRAIN, "--data.path", "labels/flags.csv", "--data.label-columns", "toxic", "rude"))
    yield Case("several labels", ("train", "multilabel"))
    yield Case("several labels", ("train", "classification", "--run", "new", *GOOD, "--data.label-separator", ";"))


def _predictions() -> Iterator[Case]:
    for folder, flags in (
        ("tags", ("--threshold", "2")),
        ("tags", ("--threshold", "-1")),
        ("tags", ("--threshold", "nan")),
        ("tags", ("--threshold", "x")),
        ("tags", ("--threshold", "0.5", "--embed", "mean")),
        ("tags", ("--top", "0")),
        ("tags", ("--strategy", "beam")),
        ("tags", ("--json",)),
        ("tags", ("--review",)),
        ("export", ("--threshold", "0.5")),
        ("generator", ("--threshold", "0.5")),
        ("export", ("--embed", "horse")),
        ("export", ("--embed",)),
        ("export", ("--embed", "mean", "--top", "2")),
        ("export", ("--embed", "mean", "--review")),
        ("generator", ("--embed", "mean", "--strategy", "sample", "--temperature", "0")),
        ("masked", ()),
        ("masked", ("--top", "2")),
        ("masked", ("--review",)),
        ("masked", ("--strategy", "beam")),
        ("export", ("--review",)),
        ("generator", ("--review",)),
        ("generator", ("--embed", "mean", "--strategy", "beam")),
        ("generator", ("--embed", "mean", "--json")),
    ):
        yield Case("what to predict", ("predict", folder, "the film", *flags))
    for name in ("embedding", "fields", "scores"):
        yield Case("what to predict", ("predict", "export", "--file", "reviews.csv", "--keep", name))
