"""The page about a run, part by part."""

from collections.abc import Iterator

from flax_transformer.data.tasks import TASKS
from flax_transformer.pages.charts import CHART_STYLE
from flax_transformer.pages.html import Html, join
from flax_transformer.pages.page import to_page
from flax_transformer.report.answers import Answers
from flax_transformer.report.attention import ATTENTION_STYLE, attention
from flax_transformer.report.classes import classes
from flax_transformer.report.confidence import confidence
from flax_transformer.report.curves import curves
from flax_transformer.report.facts import Facts
from flax_transformer.report.head import HEAD_STYLE, head
from flax_transformer.report.lengths import lengths
from flax_transformer.report.mistakes import MISTAKE_STYLE, mistakes
from flax_transformer.report.texts import texts

_STYLE = HEAD_STYLE + CHART_STYLE + MISTAKE_STYLE + ATTENTION_STYLE


def run_page(facts: Facts, answers: Answers | None, why_none: str = "") -> str:
    """The whole page.

    Args:
        answers: predictions of the best checkpoint; None leaves out the parts that show them, and
        why_none: says why there are none; empty where there can be none, as of masked tokens.
    """
    parts = [head(facts, answers, why_none), curves(facts), *(_of_answers(answers) if answers else ())]
    return to_page(f"{facts.run.folder.resolve().name}: {facts.run.config.data.task}", join(parts, Html("\n")), _STYLE)


def _of_answers(answers: Answers) -> Iterator[Html]:
    if answers.run.classes:
        yield classes(answers)
    else:
        yield texts(answers)
    if TASKS[answers.run.config.data.task].metric != "bleu":  # hardly a translation is exact
        yield confidence(answers)
    yield mistakes(answers)
    yield lengths(answers)
    yield attention(answers)
