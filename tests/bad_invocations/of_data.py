"""Files to learn from, with labels and without, and files to score a run on."""

from collections.abc import Iterator

from bad_invocations.case import TINY, TRAIN, Case
from bad_invocations.files import DATA_FILES


def cases() -> Iterator[Case]:
    yield from _data_files()
    yield from _texts_alone()
    yield from _labelled_files()


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
    yield Case("files to learn from", (*TRAIN, *TINY, "--data.label-column", "text"))
    yield Case("files to learn from", ("train", "classification", "--data.path", "", "--run", "new", *TINY))
    for value in ("horse", "utf-99", "", "punycode", "rot13"):
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


def _labelled_files() -> Iterator[Case]:
    reviews, pairs = ("evaluate", "run", "--file", "reviews.csv"), ("evaluate", "pairs", "--file", "pairs.jsonl")
    for arguments in (
        (*reviews, "--column", "absent"),
        (*reviews, "--text-column", "text", "label"),
        (*reviews, "--label-column", "absent"),
        (*reviews, "--label-column", "text"),
        (*reviews, "--label-columns", "good", "poor"),
        (*reviews, "--label-separator", ";"),
        (*reviews, "--delimiter", "ab"),
        (*reviews, "--encoding", "horse"),
        (*reviews, "--split", "validation"),
        (*pairs, "--source-column", "absent"),
        (*pairs, "--target-column", "absent"),
        (*pairs, "--label-columns", "target"),
        ("evaluate", "run", "--column", "text"),
        ("evaluate", "run", "--label-column", "label"),
        ("evaluate", "run", "--delimiter", ";"),
        ("evaluate", "run", "--file", ""),
        ("evaluate", "run", "--file", "data/no_label.csv"),
        ("evaluate", "run", "--file", "none-*.csv"),
        ("report", "run", "--file", "reviews.csv", "--label-column", "absent"),
        ("report", "run", "--file", "absent.csv"),
    ):
        yield Case("files to score", arguments)
