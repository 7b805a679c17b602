"""The tasks and their data, and the tokenizer of their texts."""

import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from flax_transformer.config.checks import check, check_choices, check_rate, check_whole, make_texts, make_tuples
from flax_transformer.config.model import Architecture

_LARGEST_VOCABULARY = 10_000_000  # the learners of the tokenizers library reserve memory for all of it


@dataclass(frozen=True)
class ManifestsData:
    """Freight manifests in free text -> JSON; generated, nothing to download."""

    task: ClassVar[str] = "manifests"
    architecture: ClassVar[Architecture] = "seq2seq"
    # manifests to train on
    train_size: int = 16_000
    # manifests by which the best checkpoint is chosen, of the kinds of training
    validation_size: int = 200
    # manifests that the final score is taken on: half of kinds that training does not have, half of its kinds
    test_size: int = 500
    # most line items in one manifest
    max_items: int = 3
    # share of short mails: one line item, and nothing above or below the booking
    short: float = 0.4
    # chance that a word is mistyped
    noise: float = 0.03

    def __post_init__(self) -> None:
        check_whole(self, "train_size", "validation_size", "test_size", at_most=10_000_000)
        check_whole(self, "max_items", at_most=100)
        check_rate(self, "noise", "short")


@dataclass(frozen=True)
class ImdbData:
    """IMDb reviews -> sentiment (Maas et al., ACL 2011)."""

    task: ClassVar[str] = "imdb"
    architecture: ClassVar[Architecture] = "classifier"
    # a file with columns split, label and text, or review and sentiment as on Kaggle (.csv, .jsonl, .parquet, ...; text
    # formats also as .gz); without it the hub's stanfordnlp/imdb
    path: str | None = None
    # assignment: 15,000 train, 10,000 validation, the rest test, duplicates removed; official: 25,000 and 25,000
    split: Literal["assignment", "official"] = "assignment"

    def __post_init__(self) -> None:
        make_texts(self, "path")
        check_choices(self)


@dataclass(frozen=True)
class Multi30kData:
    """Image captions, German <-> English (Elliott et al., 2016)."""

    task: ClassVar[str] = "multi30k"
    architecture: ClassVar[Architecture] = "seq2seq"
    # a folder of train, val and test_2016_flickr files, .de and .en (plain or .gz); without it the hub's
    # bentrevett/multi30k
    path: str | None = None
    # from which language to which
    direction: Literal["de-en", "en-de"] = "en-de"

    def __post_init__(self) -> None:
        make_texts(self, "path")
        check_choices(self)


@dataclass(frozen=True)
class SnipsData:
    """Spoken commands -> JSON frame of intent and slots (Coucke et al., 2018)."""

    task: ClassVar[str] = "snips"
    architecture: ClassVar[Architecture] = "seq2seq"
    # a folder with train.jsonl and test.jsonl (plain or .gz), rows {"text", "target": {"intent", "slots"}}
    path: str | None = None
    # copies of each training text with other values in its slots, drawn from all values that the slot has in training
    swapped_copies: int = 0

    def __post_init__(self) -> None:
        make_texts(self, "path")
        check_whole(self, "swapped_copies", at_least=0, at_most=100)


@dataclass(frozen=True)
class OwnFiles:
    """Files of the user, in which the columns have any names."""

    # files to learn from, .csv, .tsv, .json, .jsonl or .parquet (text formats also as .gz): one or more names, a
    # folder, or a pattern such as 'train-*.parquet'
    path: tuple[str, ...] = ()
    # as path; about a tenth of the training texts is set aside if not given
    validation_path: tuple[str, ...] = ()
    # as path; about a tenth of the training texts is set aside if not given
    test_path: tuple[str, ...] = ()
    # what separates the columns of a CSV, such as ; or tab; recognized if not given
    delimiter: str | None = None
    # of text files, such as cp1252; UTF-8, or what a byte order mark says, if not given
    encoding: str | None = None
    # take numbers in the columns of texts as they are written
    numbers_as_text: bool = False

    def __post_init__(self) -> None:
        make_tuples(self, "path", "validation_path", "test_path")
        if self.delimiter in ("tab", "\\t"):
            object.__setattr__(self, "delimiter", "\t")
        separates = self.delimiter is None or (len(self.delimiter) == 1 and self.delimiter not in '"\r\n')
        check(self, "delimiter", "one character, or tab", separates)
        is_known = _is_encoding(self.encoding)
        check(self, "encoding", "an encoding by its name in Python, such as cp1252 or utf-16", is_known)


@dataclass(frozen=True)
class LabelledTexts(OwnFiles):
    """Files with a column of texts, or two, for a classifier."""

    architecture: ClassVar[Architecture] = "classifier"
    # name of the column with the texts, or two names where each example is a pair of texts, such as premise and
    # hypothesis; a.b is the key b in the objects of a
    text_column: tuple[str, ...] = ("text",)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_text_columns(self)


@dataclass(frozen=True)
class ClassificationData(LabelledTexts):
    """Your own labelled texts."""

    task: ClassVar[str] = "classification"
    # name of the column with the classes
    label_column: str = "label"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_another(self, "label_column", *self.text_column)


@dataclass(frozen=True)
class MultilabelData(LabelledTexts):
    """Your own texts with any number of labels each."""

    task: ClassVar[str] = "multilabel"
    # name of the column with the labels of each text: a list of texts, or one text with a separator
    label_column: str = "labels"
    # what separates the labels in a text, such as ; or tab; bars, semicolons and commas are recognized if not given
    label_separator: str | None = None
    # in place of label_column: names of columns that are the labels, with 1 where a text has the label and 0 where not
    label_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_separator in ("tab", "\\t"):
            object.__setattr__(self, "label_separator", "\t")
        check(self, "label_separator", "at least one character, or tab", self.label_separator != "")
        make_tuples(self, "label_columns")
        texts = " and ".join(map(repr, self.text_column))
        is_set = len({*self.label_columns, *self.text_column}) == len(self.label_columns) + len(self.text_column)
        check(self, "label_columns", f"different columns, and not {texts}, of the texts", is_set)
        for name, default in (("label_separator", None), ("label_column", "labels")):
            expected = f"{default!r} with label_columns, of which each is one label"
            check(self, name, expected, not self.label_columns or getattr(self, name) == default)
        if not self.label_columns:
            _check_another(self, "label_column", *self.text_column)


@dataclass(frozen=True)
class Seq2SeqData(OwnFiles):
    """Your own pairs of texts."""

    task: ClassVar[str] = "seq2seq"
    architecture: ClassVar[Architecture] = "seq2seq"
    # name of the column with the texts to read; a.b is the key b in the objects of a
    source_column: str = "source"
    # name of the column with the texts to write; objects become JSON
    target_column: str = "target"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_another(self, "target_column", self.source_column)


@dataclass(frozen=True)
class MaskedData(OwnFiles):
    """Your own texts without labels: an encoder learns to predict masked tokens, for other tasks to start from."""

    task: ClassVar[str] = "masked"
    architecture: ClassVar[Architecture] = "masked"
    # files to learn from, .csv, .tsv, .json, .jsonl or .parquet with a column of texts, or .txt with a text in each
    # line (text formats also as .gz): one or more names, a folder, or a pattern such as 'train-*.parquet'
    path: tuple[str, ...] = ()
    # texts: the files hold nothing but texts to learn from; imdb, classification: they are those of this task, whose
    # splits are taken with the same seed, so that none of its texts for validation and test is trained on
    of: Literal["texts", "imdb", "classification"] = "texts"
    # of imdb: its split, see there
    split: Literal["assignment", "official"] = "assignment"
    # name of the column with the texts, or two names where each example is a pair of texts; a.b is the key b in the
    # objects of a
    text_column: tuple[str, ...] = ("text",)
    # of classification: name of the column with the classes, which its splits depend on
    label_column: str = "label"

    def __post_init__(self) -> None:
        check_choices(self)
        super().__post_init__()
        _check_text_columns(self)
        if self.of == "imdb":
            check(self, "path", "at most one file of imdb", len(self.path) < 2)
            for name in ("validation_path", "test_path"):
                check(self, name, "no file, since imdb is split by its own rule", not getattr(self, name))


OwnData = ClassificationData | MultilabelData | Seq2SeqData | MaskedData
DataConfig = ManifestsData | ImdbData | Multi30kData | SnipsData | OwnData
DATA_CONFIGS: dict[str, type[DataConfig]] = {kind.task: kind for kind in typing.get_args(DataConfig)}
# Of users' own data, the plainest by the kind of model that learns from it.
OWN_DATA: dict[Architecture, type[OwnData]] = {
    kind.architecture: kind for kind in (ClassificationData, Seq2SeqData, MaskedData)
}


@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes token ids."""

    # learned on the training split: byte-level BPE, or WordPiece
    kind: Literal["bpe", "wordpiece"] = "bpe"
    # most entries; source and target share one vocabulary
    vocab_size: int = 8_000
    # fold upper case to lower case
    lowercase: bool = False
    # of byte-level BPE: a space is joined to the word behind it; or it is a token of its own, as is JSON's punctuation,
    # so that a word has the same pieces in a text and in JSON, which makes copying easier, and keys of JSON are single
    # tokens, which makes targets shorter
    spaces: Literal["joined", "isolated"] = "joined"
    # an existing tokenizer.json to use instead of learning one
    path: str | None = None

    def __post_init__(self) -> None:
        make_texts(self, "path")
        check_choices(self)
        check_whole(self, "vocab_size", at_least=300, at_most=_LARGEST_VOCABULARY)


def _check_text_columns(owner: Any) -> None:
    make_tuples(owner, "text_column")
    names = owner.text_column
    expected = "one column of texts, or two different ones for pairs of texts"
    check(owner, "text_column", expected, 0 < len(set(names)) == len(names) <= 2)


def _check_another(owner: Any, name: str, *texts: str) -> None:
    """What is to be predicted from the texts does not stand in their own column, from which it would only be copied."""
    check(owner, name, "another column than that of the texts", getattr(owner, name) not in texts)


def _is_encoding(name: str | None) -> bool:
    try:
        return name is None or "".encode(name) is not None
    except (LookupError, ValueError):
        return False
