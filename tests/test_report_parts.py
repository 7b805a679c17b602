"""Parts of a run's page that tiny runs do not come to: many classes, translations, confidence beside the formula."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checked_pages import check_page

from flax_transformer.config import BatchConfig, Multi30kData, Seq2SeqData, SnipsData
from flax_transformer.data.examples import Examples
from flax_transformer.data.scoring import score_translations
from flax_transformer.decoding.predictor import Prediction
from flax_transformer.pages.page import to_page
from flax_transformer.report.answers import Answers
from flax_transformer.report.classes import classes
from flax_transformer.report.confidence import confidence
from flax_transformer.report.mistakes import mistakes
from flax_transformer.report.texts import texts


def answers_of(data: Any, predictions: list[Prediction], targets: list[Any], **more: Any) -> Answers:
    """Answers without a model; ``more`` are the names of classes, groups and lengths of sources."""
    examples = Examples([f"source {i}" for i in range(len(targets))], targets, groups=more.get("groups", ()))
    sources = SimpleNamespace(lengths=np.array(more.get("lengths", [3] * len(targets))))
    answers = object.__new__(Answers)
    vars(answers).update(
        run=SimpleNamespace(classes=more.get("classes", ()), config=SimpleNamespace(data=data)),
        evaluator=SimpleNamespace(examples=examples, encoded=SimpleNamespace(sources=sources), counts={}),
        predictions=predictions,
        scores={"bleu": 0.0},
        batch=BatchConfig(),
    )
    return answers


def text_of(part: Any) -> str:
    return check_page(to_page("", part))


def test_of_many_classes_those_that_are_confused_most():
    names = tuple(f"class <{i}>" for i in range(25))
    targets = [i for i in range(25) for _ in range(10)]
    predicted = list(targets)
    predicted[30:35], predicted[245:248] = [7] * 5, [0] * 3
    answers = answers_of(Seq2SeqData(), [Prediction(i, 0.9) for i in predicted], targets, classes=names)
    part = classes(answers)
    text = text_of(part)
    assert "Of the 25 classes, the 20 that are confused most" in text
    assert "of the label's class <3> class <7> 5 50.0% class <24> class <0> 3 30.0% Macro" in text
    assert part.count("<rect") == 20 * 20
    assert part.count("class &lt;24&gt; taken for class &lt;0&gt;: 3 of 10") == 2
    assert "class <3> 100.0% 50.0% 66.7% 10" in text


def test_translations_are_scored_by_length_and_the_worst_come_first():
    references = ["ein Mann geht", "eine Frau sitzt", "ein Hund rennt", "das Haus brennt"] * 2
    outputs = ["ein Mann geht", "eine Frau steht", "ein Hund rennt", "xyz"] * 2
    lengths = [9, 2, 7, 4, 8, 1, 6, 3]
    predictions = [Prediction(text, -1.0 * i) for i, text in enumerate(outputs)]
    answers = answers_of(Multi30kData(), predictions, references, lengths=lengths)
    text = text_of(texts(answers))
    for low, high, chosen in ((1, 2, (5, 1)), (3, 4, (7, 3)), (6, 7, (6, 2)), (8, 9, (4, 0))):
        scores = score_translations([outputs[i] for i in chosen], [references[i] for i in chosen])
        assert f"{low} to {high} 2 {scores['bleu']:.1f} {scores['chrf']:.1f}" in text
    worst = text_of(mistakes(answers))
    assert "4 of the 4 predictions that are not as expected, with the lowest chrF first" in worst
    assert [worst.index(f"text {i}") for i in (4, 8, 2, 6)] == sorted(worst.index(f"text {i}") for i in (4, 8, 2, 6))


@pytest.mark.parametrize("spelled", ['{"intent":"a","slots":{}}', '{ "slots": {}, "intent": "a" }'])
def test_json_is_right_however_it_is_spelled(spelled: str):
    answers = answers_of(SnipsData(), [Prediction(spelled, -0.1)], ['{"intent":"a","slots":{}}'])
    assert answers.right.tolist() == [True]
    assert "There are none" in text_of(mistakes(answers))
    assert "intent 100.0% 1" in text_of(texts(answers))


def test_confidence_of_texts_is_the_exponential_of_their_score():
    """Most confident mistakes first, and each group beside the other."""
    scores, outputs = [-0.1, -2.0, -0.5, -800.0], ["a", "x", "y", "b"]
    predictions = [Prediction(text, score) for text, score in zip(outputs, scores, strict=True)]
    answers = answers_of(Seq2SeqData(), predictions, ["a", "a", "b", "b"], groups=["", "", "seen", "seen"])
    np.testing.assert_allclose(answers.confidence, np.exp(scores))
    text = text_of(confidence(answers))
    assert "main seen predictions 2 2 right 50.0% 50.0% mean confidence 52.0% 30.3%" in text
    assert "can be accepted at a risk of 1% 50.0%, from a confidence of 0.905 on none" in text
    worst = text_of(mistakes(answers))
    assert worst.index("text 3, seen, confidence 60.7%") < worst.index("text 2, main, confidence 13.5%")
