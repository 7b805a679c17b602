"""Generated texts: right by field where they are JSON, or BLEU and chrF by length where they are translations."""

import numpy as np

from flax_transformer.data.fields import field_outcomes
from flax_transformer.data.scoring import score_translations
from flax_transformer.pages.html import Html, element, section, table
from flax_transformer.report.answers import Answers

_FIELDS = 60  # in the table, the most frequent ones
_PARTS = 4  # of the texts, by length


def texts(answers: Answers) -> Html:
    """A section; empty where there is nothing of the kind to be said."""
    by_group = [_outcomes(answers, group) for group in answers.groups]
    if all(by_group):
        return _by_field(answers, by_group)
    return _by_length(answers) if "bleu" in answers.scores else Html()


def _outcomes(answers: Answers, group: str) -> dict[str, list[bool]] | None:
    chosen = answers.indices(group)
    predictions = [str(answers.predictions[i].value) for i in chosen]
    return field_outcomes(predictions, [answers.examples.targets[i] for i in chosen])


def _by_field(answers: Answers, by_group: list[dict[str, list[bool]] | None]) -> Html:
    columns = [outcomes or {} for outcomes in by_group]
    names = list(dict.fromkeys(name for column in columns for name in column))
    names.sort(key=lambda name: -sum(len(column.get(name, [])) for column in columns))
    titles = [answers.group_name(group) or "right" for group in answers.groups]
    head = ["field", *(title for name in titles for title in (name, "values"))]
    rows = []
    for name in names[:_FIELDS]:
        found = [column.get(name, []) for column in columns]
        rows.append([name, *(cell for one in found for cell in (_share(one), f"{len(one):,}"))])
    note = "Share of the expected values that the output has in the same field and place."
    if len(names) > _FIELDS:
        note += f" The {_FIELDS} most frequent of {len(names):,} fields."
    return section("Fields", element("p", note, class_="soft"), table(head, rows))


def _share(outcomes: list[bool]) -> str:
    return f"{sum(outcomes) / len(outcomes):.1%}" if outcomes else ""


def _by_length(answers: Answers) -> Html:
    lengths = answers.evaluator.encoded.sources.lengths
    rows = []
    for part in np.array_split(np.argsort(lengths, kind="stable"), _PARTS):
        if part.size:
            predicted = [str(answers.predictions[i].value) for i in part]
            scores = score_translations(predicted, [answers.examples.targets[i] for i in part])
            figures = (f"{scores[name]:.1f}" for name in ("bleu", "chrf"))
            rows.append([f"{lengths[part[0]]} to {lengths[part[-1]]}", f"{len(part):,}", *figures])
    note = "The texts in four parts of equal size, by the length of their source."
    return section(
        "By length", element("p", note, class_="soft"), table(["source tokens", "texts", "BLEU", "chrF"], rows)
    )
