"""Copied values: what may come next, token by token, against plain string operations; and generation in both twins."""

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from generators import make_twins
from mutation import mutated, with_mistake

from flax_transformer.config import GenerationConfig, ModelConfig, TokenizerConfig
from flax_transformer.data import copying as data
from flax_transformer.data.constraint import json_constraint
from flax_transformer.data.tokenizer import Tokenizer, train_tokenizer
from flax_transformer.decoding import copying as flax_copying
from flax_transformer.decoding import generate as flax_generate
from flax_transformer.errors import UserError
from torch_reference.decoding import copying as torch_copying
from torch_reference.decoding import generate as torch_generate

COPIED = {"type": "string", "copied": True}
SCHEMA = {
    "type": "object",
    "properties": {
        "from": {**COPIED, "maxLength": 70},
        "kind": {"enum": ["a", "bc"]},
        "goods": {"type": "array", "items": {**COPIED, "maxLength": 70}, "minItems": 1, "maxItems": 2},
    },
    "required": ["from", "kind", "goods"],
}
# Source and output: quotes and backslashes, lists, an empty value, a line break, letters of several bytes.
PAIRS = [
    ("Ship 20 tons of tea (green) for Lone Pine Ltd. please", ("Lone Pine Ltd.", "a", ["tea", "green"])),
    ('goods: 5" nails, C:\\x; shipper "Kraft" & Söhne', ('"Kraft" & Söhne', "bc", ['5" nails', "C:\\x"])),
    ("> from: Ōsaka\n> Trading KK | 茶 | rice  and\tbeans", ("Ōsaka Trading KK", "a", ["茶", "rice and beans"])),
    ("nothing is said \n", ("", "bc", ["nothing"])),
]


def target_of(values: tuple[str, str, list[str]]) -> str:
    return json.dumps(
        dict(zip(("from", "kind", "goods"), values, strict=True)), ensure_ascii=False, separators=(",", ":")
    )


def learn_tokenizer(spaces: Any) -> Tokenizer:
    texts = [text for source, values in PAIRS for text in (source, target_of(values))] * 3
    return train_tokenizer(TokenizerConfig(vocab_size=420, spaces=spaces), texts)


def encode(tokenizer: Tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    rows = [list(ids) for ids in tokenizer.encode(texts)]
    lengths = np.array([len(row) for row in rows], np.int32)
    ids = np.zeros((len(rows), lengths.max()), np.int32)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    return ids, lengths


def open_value(written: bytes) -> bytes | None:
    """What has been written of the copied value that has begun and not ended; None outside of one."""
    strings = list(re.finditer(rb'"((?:[^"\\]|\\.)*+)("?)', written, re.DOTALL))
    if not strings or strings[-1][2]:
        return None
    last = strings[-1]
    key = next((one[1] for one in reversed(strings[:-1]) if written[one.end() : one.end() + 1] == b":"), b"")
    is_value = written[: last.start()].endswith(b":") or (
        key == b"goods" and written[: last.start()].rstrip(b",").endswith((b"[", b'"'))
    )
    return written[last.start() + 1 :] if is_value and key in (b"from", b"goods") else None


def starts_and_ends(source: str) -> tuple[list[bytes], set[bytes]]:
    """All that may stand in a value: rests of the text from the beginning of a word, and whole parts of it."""
    text = re.sub(r"[\s>|]*\n[\s>|]*|[^\S\n]+", " ", source)
    edges = [i for i in range(len(text) + 1) if not re.fullmatch(r"\w\w", text[i - 1 : i + 1] if i else "")]
    escaped = [json.dumps(text[i:], ensure_ascii=False)[1:-1].encode() for i in range(len(text) + 1)]
    begins = [i for i in edges if i < len(text) and not text[i].isspace()]
    finishes = [i for i in edges if i > 0 and not text[i - 1].isspace()]
    parts = {escaped[i][: len(escaped[i]) - len(escaped[j])] for i in begins for j in finishes if i < j}
    return [escaped[i] for i in begins], parts | {b""}


def may_follow(source: tuple[list[bytes], set[bytes]], value: bytes, token: bytes) -> bool | None:
    """Within a copied value, of which ``value`` is written; None where the rule says nothing of the token."""
    rests, parts = source
    if any(rest.startswith(value + token) for rest in rests):
        return True
    closed = re.match(rb'((?:[^"\\]|\\.)*)"', value + token, re.DOTALL)
    if not closed or token.count(b'"') > 1 or not token.endswith((b'"', b",", b"}", b"]")):
        return None if b'"' in token else False
    return closed[1] in parts


def walk(step: Any, rule: Any, tokenizer: Tokenizer) -> int:
    """The outputs of ``PAIRS`` token by token; how many tokens were compared at places within copied values."""
    spelled = tokenizer.token_bytes()
    source, lengths = encode(tokenizer, [text for text, _ in PAIRS])
    outputs = [list(ids) for ids in tokenizer.encode([target_of(values) for _, values in PAIRS])]
    parts = [starts_and_ends(text) for text, _ in PAIRS]
    tables = step.tables(data.Copying(*rule.of(source, lengths)))
    state, compared = step.start(tables), 0
    for number in range(max(map(len, outputs))):
        allowed = step.allowed(tables, state)
        for row, output in enumerate(outputs):
            if number >= len(output):
                continue
            if re.search(rb':"[^",]', spelled.get(output[number], b"")):
                assert not allowed[row, output[number]]  # it begins a value and holds some of it
                output[number:] = []
                continue
            assert allowed[row, output[number]], (PAIRS[row], number)
            value = open_value(b"".join(spelled.get(token, b"") for token in output[:number]))
            if value is None:
                continue
            for token, text in spelled.items():
                expected = may_follow(parts[row], value, text)
                assert expected is None or allowed[row, token] == expected, (PAIRS[row], value, text)
                compared += expected is not None
        state = step.on(tables, state, [output[number] if number < len(output) else 0 for output in outputs])
    return compared


class FlaxStep:
    tables = staticmethod(lambda copying: flax_copying.copy_tables(copying, 1))
    start = staticmethod(lambda tables: flax_copying.start_copying(tables))
    allowed = staticmethod(lambda tables, state: np.asarray(flax_copying.copyable_tokens(tables, state)))
    on = staticmethod(lambda tables, state, tokens: flax_copying.copy_on(tables, state, jnp.asarray(tokens)))


class TorchStep:
    tables = staticmethod(lambda copying: torch_copying.copy_tables(copying, 1, torch.device("cpu")))
    start = staticmethod(lambda tables: torch_copying.start_copying(tables))
    allowed = staticmethod(lambda tables, state: torch_copying.copyable_tokens(tables, state).numpy())
    on = staticmethod(lambda tables, state, tokens: torch_copying.copy_on(tables, state, torch.tensor(tokens)))


@pytest.mark.parametrize("spaces", ["joined", "isolated"])
@pytest.mark.parametrize("step", [FlaxStep, TorchStep])
def test_a_copied_value_goes_on_and_ends_as_the_source_does(step: Any, spaces: Any) -> None:
    tokenizer = learn_tokenizer(spaces)
    assert walk(step, data.CopyRule(SCHEMA, tokenizer), tokenizer) > 5_000


@pytest.mark.parametrize("step", [FlaxStep, TorchStep])
def test_a_token_that_ends_an_item_begins_none_with_letters_of_its_own(step: Any) -> None:
    texts = ['{"goods":["tea","b"],"ba":"","bc":"","bd":"","be":""}'] * 9
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=300, spaces="isolated"), texts)
    spelled = {text: token for token, text in tokenizer.token_bytes().items()}
    assert {b'","', b'","b'} <= spelled.keys()
    schema = {"type": "object", "properties": {"goods": {"type": "array", "items": COPIED}}}
    source, lengths = encode(tokenizer, ["tea, tea, b"])
    tables = step.tables(data.CopyRule(schema, tokenizer).of(source, lengths))
    state = step.start(tables)
    for token in tokenizer.encode(['{"goods":["tea'])[0]:
        state = step.on(tables, state, [token])
    allowed = step.allowed(tables, state)[0]
    assert allowed[spelled[b'","']]
    assert not allowed[spelled[b'","b']]


MUTANTS = [
    ("decoding/copying.py", "may_end = (state.places & tables.finishes)", "may_end = state.places"),
    ("decoding/copying.py", "(tables.tokens == tokens[:, None])", "(tables.tokens >= 0)"),
    (
        "decoding/copying.py",
        "where(goes_on[:, None], places, tables.begins)",
        "where(goes_on[:, None], places, places)",
    ),
    ("decoding/copying.py", "(may_end & tables.closes", "(may_end & ~tables.closes"),
    ("data/copying.py", "self.begins += [place] * (not after.isspace())", "self.begins += [place]"),
    ("data/copying.py", "if not (_WORD.match(before) and _WORD.match(after)):", "if True:"),
    ("data/copying.py", '_LINE_BREAK.sub(" ", text)', "text"),
    ("data/copying.py", "json.dumps(character, ensure_ascii=False)[1:-1].encode()", "character.encode()"),
    ("data/copying.py", '_row(value, {\'"\': _OBJECT, "\\\\": value_escape})', "_row(value, {'\"': _OBJECT})"),
    ("data/copying.py", "if end is None or text == b'\"':", "if end is None:"),
    ("data/copying.py", "self.begins.append(len(self.text))", "pass"),
    ("data/copying.py", "elif end > 0:", "elif False:"),
]


def walk_both_ways(step: Any, rule: Any) -> None:
    for spaces in ("joined", "isolated"):
        tokenizer = learn_tokenizer(spaces)
        walk(step, rule(SCHEMA, tokenizer), tokenizer)


@contextlib.contextmanager
def planted(package: str, file: str, old: str, new: str) -> Iterator[Any]:
    """The module of the rule, of which one of the files has the mistake."""
    if file.startswith("decoding"):
        with mutated(f"{package}/{file}", old, new):
            yield data
    else:
        yield with_mistake(data, old, new)


@pytest.mark.parametrize(("file", "old", "new"), MUTANTS)
@pytest.mark.parametrize(("package", "step"), [("flax_transformer", FlaxStep), ("torch_reference", TorchStep)])
def test_mistakes_are_caught(package: str, step: Any, file: str, old: str, new: str) -> None:
    with planted(package, file, old, new) as module, pytest.raises(AssertionError):
        walk_both_ways(step, module.CopyRule)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("strategy", ["beam", "greedy", "sample"])
@pytest.mark.sample(1)
def test_both_twins_generate_values_that_quote_the_source(strategy: Any) -> None:
    pytest.importorskip("outlines_core", reason="random weights write no JSON of their own")
    tokenizer = learn_tokenizer("isolated")
    source, lengths = encode(tokenizer, [text for text, _ in PAIRS])
    config = ModelConfig(
        d_model=8, num_heads=2, d_ff=8, num_encoder_layers=1, num_decoder_layers=1, max_length=256, dtype="float64",
        source_vocab_size=tokenizer.vocab_size, target_vocab_size=tokenizer.vocab_size, param_dtype="float64",
    )  # fmt: skip
    twins = make_twins(config, seed=1)
    settings = GenerationConfig(240, strategy=strategy, beam_width=3)
    rules = {
        "constraint": json_constraint(SCHEMA, tokenizer),
        "copying": data.CopyRule(SCHEMA, tokenizer).of(source, lengths),
    }
    ours = jax.device_get(flax_generate.generate(twins.flax, source, lengths, settings, **rules))
    theirs = torch_generate.generate(twins.torch, torch.tensor(source), torch.tensor(lengths), settings, **rules)
    np.testing.assert_array_equal(ours.tokens, theirs.tokens.numpy())
    outputs = tokenizer.decode(flax_generate.read_tokens(ours))
    for (text, _), output in zip(PAIRS, outputs, strict=True):
        _, parts = starts_and_ends(text)
        written = json.loads(output)
        for value in (written["from"], *written["goods"]):
            assert json.dumps(value, ensure_ascii=False)[1:-1].encode() in parts, (text, output)
    free = flax_generate.generate(twins.flax, source, lengths, settings, constraint=rules["constraint"])
    assert not np.array_equal(ours.tokens, jax.device_get(free).tokens)


def test_a_rule_for_other_sources_is_refused() -> None:
    tokenizer = learn_tokenizer("isolated")
    source, lengths = encode(tokenizer, [text for text, _ in PAIRS])
    rule = data.CopyRule(SCHEMA, tokenizer).of(source, lengths)
    sizes: dict[str, Any] = {"d_model": 8, "d_ff": 8, "num_encoder_layers": 1, "num_decoder_layers": 1}
    config = ModelConfig(**sizes, source_vocab_size=tokenizer.vocab_size, target_vocab_size=tokenizer.vocab_size)
    model = make_twins(config, seed=1).flax
    with pytest.raises(UserError, match="copying: expected that of 2 sources, got 4"):
        flax_generate.generate(model, source[:2], lengths[:2], copying=rule)
    smaller = dataclasses.replace(config, source_vocab_size=300, target_vocab_size=300)
    with pytest.raises(UserError, match="copying: expected a rule for 300 token ids"):
        flax_generate.generate(make_twins(smaller, seed=1).flax, source % 300, lengths, copying=rule)
