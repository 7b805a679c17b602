"""Tokenizers: exact round trips, special tokens, tokenizers made elsewhere, and their errors."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flax_transformer.config import TokenizerConfig
from flax_transformer.data.encoding import tell_changed_targets
from flax_transformer.data.examples import Examples
from flax_transformer.data.tokenizer import SPECIAL_TOKENS, load_tokenizer, train_tokenizer
from flax_transformer.errors import UserError

TEXTS = ["Booked 40 bags, 1250 kg, ETD 2026-03-14.", "booked 12 drums from Łódź to Rotterdam", "40 bags; 12 drums"] * 3
BPE = train_tokenizer(TokenizerConfig(vocab_size=400), TEXTS)
ISOLATED = train_tokenizer(TokenizerConfig(vocab_size=400, spaces="isolated"), TEXTS)


@settings(deadline=None)
@given(st.lists(st.text(), max_size=4))
def test_byte_level_bpe_gives_back_exactly_what_it_encoded(texts):
    assert BPE.decode(BPE.encode(texts)) == texts
    assert ISOLATED.decode(ISOLATED.encode(texts)) == texts


def test_isolated_spaces_leave_a_word_the_same_pieces_everywhere():
    """Joined ones do not: that is what makes copying a word into JSON hard."""
    for tokenizer, is_same in ((ISOLATED, True), (BPE, False)):
        quoted, spaced = tokenizer.encode(['{"drums"', "12 drums"])
        (alone,) = tokenizer.encode(["drums"])
        assert quoted[-1 - len(alone) : -1] == alone
        assert (spaced[-len(alone) :] == alone) == is_same
    (ids,) = ISOLATED.encode(["a  b"])
    assert ISOLATED.decode([[i] for i in ids]) == ["a", " ", " ", "b"]


def test_keys_of_json_are_single_tokens():
    texts = ['{"from":"tea","item-list":[{"no.":1,"wants":null}]}', '{"from":"","item-list":[]}']
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=400, spaces="isolated"), texts * 3)
    pieces = tokenizer.token_bytes()
    spelled = [[pieces[i].decode() for i in ids] for ids in tokenizer.encode(texts)]
    assert spelled[0] == ['{"from":"', "tea", '","item-list":[{"no.":', "1", ',"wants":', "null", "}]}"]
    assert spelled[1] == ['{"from":"', '","item-list":[', "]}"]
    assert tokenizer.decode(tokenizer.encode(texts)) == texts


def test_the_bytes_of_isolated_tokens_add_up_to_the_text():
    pieces = ISOLATED.token_bytes()
    text = 'booked 12 drums "Łódź" {}'
    (ids,) = ISOLATED.encode([text])
    assert b"".join(pieces[i] for i in ids) == text.encode()
    assert not any(b" " in piece and piece != b" " for piece in pieces.values())


@pytest.mark.parametrize("text", [" \n\t ", "a  b ", "[EOS] [PAD][UNK]", "½ ١٢ 日本", "\x00", "e\u0301 é", ""])
def test_byte_level_bpe_keeps_awkward_texts(text):
    assert BPE.decode(BPE.encode([text])) == [text]
    assert BPE.unk_id not in BPE.encode([text])[0]


def test_half_a_character_is_refused():
    with pytest.raises(UserError, match=r"half a character in it: 'a \\ud800 b'"):
        BPE.encode(["whole", "a \ud800 b"])


def test_a_typed_special_token_is_plain_text(tmp_path):
    BPE.save(tmp_path / "tokenizer.json")
    for tokenizer in (BPE, load_tokenizer(tmp_path / "tokenizer.json")):
        (ids,) = tokenizer.encode(["".join(SPECIAL_TOKENS)])
        assert len(ids) > 4
        assert not set(ids) & {0, 1, 2, 3}


def test_each_digit_is_a_token():
    (ids,) = BPE.encode(["1250"])
    assert BPE.decode([[i] for i in ids]) == ["1", "2", "5", "0"]


def test_special_ids_come_first_and_are_left_out_of_the_text():
    assert (BPE.pad_id, BPE.bos_id, BPE.eos_id, BPE.unk_id) == (0, 1, 2, 3)
    (ids,) = BPE.encode(["bags"])
    assert BPE.decode([[BPE.bos_id, *ids, BPE.eos_id, BPE.pad_id]]) == ["bags"]


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_learning_is_deterministic_and_a_saved_tokenizer_is_the_same(kind, tmp_path):
    paths = [tmp_path / "first.json", tmp_path / "second.json", tmp_path / "loaded.json"]
    config = TokenizerConfig(kind=kind, vocab_size=330)
    for path in paths[:2]:
        train_tokenizer(config, TEXTS).save(path)
    load_tokenizer(paths[0]).save(paths[2])
    assert paths[0].read_bytes() == paths[1].read_bytes() == paths[2].read_bytes()


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_lowercase_is_an_option(kind):
    texts = ["Booked 40 BAGS"]
    lower, cased = (train_tokenizer(TokenizerConfig(kind=kind, lowercase=on), TEXTS + texts) for on in (True, False))
    assert lower.encode(texts) == lower.encode(["booked 40 bags"])
    assert lower.decode(lower.encode(texts)) == ["booked 40 bags"]
    assert cased.decode(cased.encode(texts)) == texts


def test_targets_that_the_tokenizer_changes_are_told(capsys):
    examples = Examples(["a", "b", "c"], [f"booked {'40 ' * 30}{last}" for last in ("bags", "Bags", "bags (4)")])
    for config in (TokenizerConfig(lowercase=True), TokenizerConfig(kind="wordpiece")):
        tell_changed_targets(examples, train_tokenizer(config, [*TEXTS, *examples.targets]))
    of_case, of_spaces = capsys.readouterr().err.splitlines()
    assert "1 of the first 3 training targets cannot be generated as they are" in of_case
    assert "40 bags' of '" in of_case
    assert "40 Bags'; byte-level BPE" in of_case
    assert "( 4 )' of " in of_spaces
    tell_changed_targets(examples, BPE)
    tell_changed_targets(Examples(["a"], [0]), train_tokenizer(TokenizerConfig(lowercase=True), TEXTS))
    assert capsys.readouterr().err == ""


def test_word_piece_knows_words_and_marks_the_unknown():
    tokenizer = train_tokenizer(TokenizerConfig(kind="wordpiece", lowercase=True), TEXTS)
    known, unknown = tokenizer.encode(["booked bags", "日"])
    assert len(known) == 2
    assert unknown == [tokenizer.unk_id]


def test_many_texts_are_encoded_in_order():
    texts = [str(n) for n in range(10_000)]
    assert BPE.decode(BPE.encode(texts)) == texts


def _word_level(tokens, **extra):
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": tokens[-2]}
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model, **extra})


def test_a_tokenizer_made_elsewhere_is_used_without_its_padding_and_truncation(tmp_path):
    path = tmp_path / "tokenizer.json"
    truncation = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    extra = {"truncation": truncation, "pre_tokenizer": {"type": "Whitespace"}}
    path.write_text(_word_level(["<s>", "<pad>", "</s>", "<unk>", "bags"], **extra))
    tokenizer = train_tokenizer(TokenizerConfig(path=str(path)), [])
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (1, 0, 2, 3)
    assert tokenizer.encode(["bags bags drums"]) == [[4, 4, 3]]
    assert tokenizer.vocab_size == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_word_level(["<s>", "</s>", "<unk>", "bags"]), "expected a pad token"),
        ("{}", "tokenizers library"),
        ("no json", "tokenizers library"),
        ("\xff", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_a_users_mistake(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=f"tokenizer.json: .*{message}"):
        load_tokenizer(path)
