"""Texts to predict for, how to generate, and schemas."""

from collections.abc import Iterator

from bad_invocations.case import Case
from bad_invocations.files import SCHEMAS


def cases() -> Iterator[Case]:
    yield from _inputs()
    yield from _generation()


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
    for name in ("sheet.csv", "old_sheet.csv", "json.csv", "page.json", "pointer.parquet", "preamble.csv"):
        yield Case("texts to predict for", ("predict", "export", "--file", f"data/{name}"))
    for flag, value in (("--column", "text"), ("--delimiter", ";")):
        yield Case("texts to predict for", ("predict", "export", "--file", "data/plain.txt", flag, value))
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
    for stdin in (
        b"",
        b"\x1f\x8b\x08\x00",
        b"\xff\xfe",
        b"\x00\x01\x02",
        "schön".encode("latin-1"),
        b"a\nb\n\xc3\n",
        b"\xef\xbb\xbf",
    ):
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
