"""Splits by content: what a text's place does and does not depend on."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flax_transformer.data.splitting import split_by_content
from flax_transformer.errors import UserError

BOTH = (True, True)


def parts_of(texts, groups=None, wanted=BOTH, seed=0):
    """Text -> the part it went to; of copies, one."""
    groups = groups or [None] * len(texts)
    parts = split_by_content(texts, [(group,) for group in groups], wanted, seed)
    assert sorted(i for part in parts for i in part) == list(range(len(texts)))
    return {texts[i]: number for number, part in enumerate(parts) for i in part}


def test_about_a_tenth_goes_to_each_part():
    counts = Counter(parts_of([f"text {i}" for i in range(20_000)]).values())
    assert counts[0] == pytest.approx(2_000, rel=0.1)
    assert counts[1] == pytest.approx(2_000, rel=0.1)


def test_the_place_follows_from_the_seed():
    texts = [f"text {i}" for i in range(200)]
    assert parts_of(texts, seed=1) == parts_of(texts, seed=1) != parts_of(texts, seed=2)


@pytest.mark.parametrize("rows", [60, 300, 2_000])
@pytest.mark.parametrize("more", [["x", "y"], [f"new {i}" for i in range(100)], ["text 1"], ["TEXT  5"]])
def test_appended_rows_move_no_other(rows, more):
    """Of the classes that there were, and of a new one."""
    texts = [f"text {i}" for i in range(rows)]
    groups = [i % 3 for i in range(rows)]
    before = parts_of(texts, groups)
    for group in (0, 3):
        after = parts_of(texts + more, groups + [group] * len(more))
        assert {text: after[text] for text in texts} == before


def test_the_order_of_the_rows_does_not_matter():
    texts = [f"text {i}" for i in range(60)]
    groups = [i % 3 for i in range(60)]
    before = parts_of(texts, groups)
    pairs = list(zip(texts, groups, strict=True))
    random.Random(0).shuffle(pairs)
    shuffled, their_groups = map(list, zip(*pairs, strict=True))
    assert parts_of(shuffled, their_groups) == before


def test_a_file_for_one_part_moves_no_row_of_the_other():
    texts = [f"text {i}" for i in range(300)]
    both, only_test = parts_of(texts), parts_of(texts, wanted=(False, True))
    assert [text for text in texts if both[text] == 1] == [text for text in texts if only_test[text] == 1]
    assert 0 not in only_test.values()


@pytest.mark.parametrize("copy", ["The  Film ", "the film", "THE\tFILM\n", "the\u00a0film"])
def test_copies_go_together(copy):
    for seed in range(50):
        texts = [f"text {i}" for i in range(20)] + ["The Film", copy]
        found = parts_of(texts, seed=seed)
        assert found["The Film"] == found[copy]


@pytest.mark.parametrize("seed", range(20))
def test_a_common_class_is_in_every_part(seed):
    texts = [f"text {i}" for i in range(90)]
    groups = [i % 3 for i in range(90)]
    parts = split_by_content(texts, [(group,) for group in groups], BOTH, seed)
    assert [{groups[i] for i in part} for part in parts] == [{0, 1, 2}] * 3


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_rare_class_is_always_trained(size):
    for seed in range(200):
        texts = [f"text {i}" for i in range(30)] + [f"rare {i}" for i in range(size)]
        found = parts_of(texts, ["common"] * 30 + ["rare"] * size, seed=seed)
        assert 2 in {part for text, part in found.items() if text.startswith("rare")}


@pytest.mark.parametrize("seed", range(50))
def test_a_text_with_several_labels_counts_for_each(seed):
    texts = [f"text {i}" for i in range(60)]
    groups: list[tuple[str, ...]] = [("all", "odd" if i % 2 else "even") for i in range(60)]
    groups[7], groups[11], groups[13] = ("all", "rare"), ("rare", "single"), ()
    parts = split_by_content(texts, groups, BOTH, seed)
    labels = [{label for i in part for label in groups[i]} for part in parts]
    assert labels[2] == {"all", "even", "odd", "rare", "single"}
    assert all(found >= {"all", "even"} for found in labels)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.tuples(st.text("ab ", max_size=3), st.sampled_from("xyz")), min_size=1, max_size=25),
    st.tuples(st.booleans(), st.booleans()),
    st.integers(0, 5),
)
def test_every_class_and_every_part_has_a_text_or_the_split_is_refused(rows, wanted, seed):
    texts, groups = map(list, zip(*rows, strict=True))
    distinct = len({" ".join(text.split()) for text in texts})
    try:
        parts = split_by_content(texts, [(group,) for group in groups], wanted, seed)
    except UserError:
        assert distinct < len(set(groups)) + sum(wanted)
        return
    assert sorted(i for part in parts for i in part) == list(range(len(texts)))
    assert {groups[i] for i in parts[-1]} == set(groups)
    assert [bool(part) for part in parts[:-1]] == list(wanted)


def test_too_few_texts_are_refused():
    with pytest.raises(UserError, match="expected more than 2 distinct texts to split, got 2: each class keeps one"):
        split_by_content(["a", "b"], [(0,), (1,)], BOTH, seed=0)
