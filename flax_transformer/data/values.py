"""Values of a row -> the text or the label that they are meant to be, or the reason why they cannot be one."""

import datetime
import decimal
import json
import math
import re
import unicodedata
from typing import Any

# Which of two forms a character has, an emoji in color for one.
_VARIATION = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LARGEST_DIGITS = 1e16  # from which on Python writes a float with an exponent
_SHOWN = 60  # characters of a name or a label that a message shows


class UnusableError(ValueError):
    """A value that cannot be used; the message says what it is."""


def to_text(value: Any, *, numbers: bool = False) -> str:
    """A text; lists of texts, such as the words of a sentence, are joined by spaces.

    Args:
        numbers: take them as they are written.

    Raises:
        UnusableError: it is missing, blank, or something else.
    """
    match value:
        case _ if is_missing(value):
            raise UnusableError("is missing")
        case str():
            return _checked(value)
        case bytes():  # some writers of Parquet do not say that a column is text
            return _checked(value.decode("utf-8", "surrogateescape"))
        case list() | tuple() if value and all(isinstance(word, str) for word in value):
            return _checked(" ".join(value))
        case bool():
            raise UnusableError("is true or false, no text")
        case int() | float() | decimal.Decimal() | datetime.date() | datetime.time() | datetime.timedelta():
            if numbers:
                return str(value)
            raise UnusableError("is a number or a date, no text")
    raise UnusableError("is an array, no text" if isinstance(value, list | tuple) else "is an object, no text")


def to_target(value: Any, *, numbers: bool = False) -> str:
    """As :func:`to_text`; objects and other arrays become JSON without spaces, their keys in the order of the file.

    Raises:
        UnusableError: it is missing, blank, or holds what JSON cannot.
    """
    is_words = isinstance(value, list | tuple) and value and all(isinstance(word, str) for word in value)
    if not isinstance(value, dict | list | tuple) or is_words:
        return to_text(value, numbers=numbers)
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_in_json)
    except (ValueError, TypeError, RecursionError) as error:
        raise UnusableError("holds what JSON cannot") from error
    return _checked(text)


def to_label(value: Any) -> str:
    """The name of a class, without outer blanks. Numbers, true and false are taken; 1.0 of a float column is 1.

    Raises:
        UnusableError: it is missing, blank, or something else.
    """
    if is_missing(value):
        raise UnusableError("is missing")
    if isinstance(value, float) and math.isinf(value):
        raise UnusableError("is infinite")
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_DIGITS:
        return str(int(value))
    if isinstance(value, bool | int | float | decimal.Decimal | datetime.date | datetime.time | datetime.timedelta):
        return str(value)
    if isinstance(value, str | bytes):
        return to_text(value).strip()
    raise UnusableError("is an array, no label" if isinstance(value, list | tuple) else "is an object, no label")


def shown(text: str) -> str:
    """A name or a label as a message shows it: in one line, and not all of a long one."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


def plain(text: str) -> str:
    """In small letters, in one Unicode form, without invisible characters other than blanks: what looks alike is alike.

    Example:
        >>> plain("\ufeffTe\u0301xt") == plain("t\xe9xt")
        True
    """
    if text.isascii() and text.isprintable():
        return text.casefold()
    folded = _VARIATION.sub("", unicodedata.normalize("NFKC", text).casefold())
    return "".join(letter for letter in folded if letter.isspace() or unicodedata.category(letter) not in ("Cf", "Cc"))


def is_missing(value: Any) -> bool:
    """Null, and the numbers that stand for it."""
    return value is None or (isinstance(value, float | decimal.Decimal) and math.isnan(value))


def _in_json(value: Any) -> Any:
    """A value that only Parquet has, as the same data in JSON has it."""
    match value:
        case bytes():
            return value.decode("utf-8", "surrogateescape")
        case decimal.Decimal() if decimal.Decimal(repr(float(value))) == value:
            return int(value) if value == int(value) else float(value)
        case decimal.Decimal() | datetime.date() | datetime.time():
            return str(value)
    raise TypeError(f"{type(value).__name__} is not of JSON")


def _checked(text: str) -> str:
    if not text.strip():
        raise UnusableError("is blank")
    if _SURROGATE.search(text):
        raise UnusableError("holds broken characters")
    return text
