"""The worst examples: what was expected and what was predicted, side by side, with their differences marked."""

import re
from difflib import SequenceMatcher

import numpy as np

from flax_transformer.data.examples import texts_of
from flax_transformer.data.tasks import TASKS
from flax_transformer.pages.html import Html, element, join, section, to_html
from flax_transformer.report.answers import Answers

_SHOWN = 12
_LONGEST = 1500  # characters of a text
_PIECES = re.compile(r"\w+|\s+|[^\w\s]")


def mistakes(answers: Answers) -> Html:
    """A section: the most confident mistakes first; of translations, of which hardly any is exact, the lowest chrF."""
    wrong = np.flatnonzero(~answers.right)
    if wrong.size == 0:
        return section("Mistakes", element("p", "There are none.", class_="soft"))
    is_translation = TASKS[answers.run.config.data.task].metric == "bleu"
    badness = _sentence_chrf(answers, wrong) if is_translation else -answers.log_probabilities[wrong]
    worst = wrong[np.argsort(badness, kind="stable")[:_SHOWN]]
    order = "with the lowest chrF first" if is_translation else "the most confident ones first"
    note = f"{len(worst):,} of the {len(wrong):,} predictions that are not as expected, {order}."
    return section("Mistakes", element("p", note, class_="soft"), *(_mistake(answers, int(i)) for i in worst))


def _sentence_chrf(answers: Answers, chosen: np.ndarray) -> np.ndarray:
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    pairs = ((str(answers.predictions[i].value), [answers.examples.targets[i]]) for i in chosen)
    return np.array([metric.sentence_score(text, references).score for text, references in pairs])


def _mistake(answers: Answers, index: int) -> Html:
    examples, prediction = answers.examples, answers.predictions[index]
    where = examples.places[index] if examples.places else f"text {index + 1}"
    group = examples.groups[index] if examples.groups else ""
    about = [where, answers.group_name(group), f"confidence {answers.confidence[index]:.1%}"]
    about += ["cut off by the length limit"] * (not prediction.complete)
    expected, predicted = _sides(answers, index)
    source = "\n\n".join(texts_of(examples.sources[index]))
    columns = {"source": to_html(_short(source)), "expected": expected, "predicted": predicted}
    boxes = [element("div", element("h4", name), element("pre", text)) for name, text in columns.items()]
    line = element("p", ", ".join(filter(None, about)), class_="soft")
    return element("article", line, element("div", *boxes, class_="sides"), class_="mistake")


def _sides(answers: Answers, index: int) -> tuple[Html, Html]:
    target, value = answers.examples.targets[index], answers.predictions[index].value
    if answers.run.classes:
        return to_html(answers.run.classes[target]), _alternatives(answers, index)
    return differences(_short(target), _short(str(value)))


def _alternatives(answers: Answers, index: int) -> Html:
    """The three most probable classes, one a line."""
    first = answers.predictions[index]
    lines = [f"{answers.run.classes[one.class_id]} {one.score:.1%}" for one in (first, *first.alternatives[:2])]
    return to_html("\n".join(lines))


def differences(expected: str, predicted: str) -> tuple[Html, Html]:
    """Both texts, with ``del`` around what the second lacks and ``ins`` around what it has instead.

    Example:
        >>> differences("a red <b>", "a blue <b>")
        ('a <del>red</del> &lt;b&gt;', 'a <ins>blue</ins> &lt;b&gt;')
    """
    one, other = _PIECES.findall(expected), _PIECES.findall(predicted)
    steps = SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    first = join(_marked("del", kind, "".join(one[start:end])) for kind, start, end, _, _ in steps)
    return first, join(_marked("ins", kind, "".join(other[start:end])) for kind, _, _, start, end in steps)


def _marked(name: str, kind: str, text: str) -> Html:
    return element(name, text) if text and kind != "equal" else to_html(text)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


MISTAKE_STYLE = """
.mistake { border-top: 1px solid var(--line); padding: .5rem 0 1rem; } .mistake p { margin: 0 0 .25rem; }
.sides { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 1rem; }
.sides h4 { margin: 0; font-size: .8rem; font-weight: 600; color: var(--soft); }
pre { font: .82rem/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0;
      max-height: 18rem; overflow-y: auto; }
del, ins { text-decoration: none; border-radius: 3px; }
del { background: var(--removed); } ins { background: var(--added); }
@media (max-width: 48rem) { .sides { grid-template-columns: 1fr; gap: .5rem; } }
"""
