"""What the run is and what it has come to."""

import shlex
from collections.abc import Iterator, Mapping
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import jax

from flax_transformer.config import ModelConfig
from flax_transformer.pages.html import Html, element, join, section, table
from flax_transformer.report.answers import Answers
from flax_transformer.report.facts import Facts, group_name
from flax_transformer.training.report import format_score


def head(facts: Facts, answers: Answers | None, why_none: str) -> Html:
    """Title, what the reader must know first, the main figures, and a list of all else.

    Args:
        answers: None where there are no predictions, and
        why_none: says why.
    """
    run = facts.run
    notes = [element("p", note, class_="warning") for note in _notes(facts, answers, why_none)]
    entries = [(element("dt", name), element("dd", value)) for name, value in _entries(facts)]
    about = (type(run.config.data).__doc__ or "").strip().splitlines()[0]
    return join([
        element("h1", run.folder.resolve().name),
        element("p", f"{run.config.data.task}: {about}", class_="soft"),
        *notes,
        element("div", *_tiles(facts), class_="tiles"),
        element("dl", *(part for entry in entries for part in entry), class_="facts"),
        _scores(facts, answers),
    ])  # fmt: skip


def _notes(facts: Facts, answers: Answers | None, why_none: str) -> Iterator[str]:
    if not facts.has_ended:
        step, epoch = (facts.rows[-1]["step"], facts.rows[-1].get("epoch", 0)) if facts.rows else (0, 0)
        yield (
            f"The run has not ended: it is at step {step:,}, epoch {epoch:.4g} of {facts.run.config.epochs}. "
            "There is no score on the test split yet."
        )
    if answers is None and why_none:
        yield f"There are no predictions on this page: {why_none}"
    if answers is not None and answers.is_limited:
        yield (
            f"Predictions are of {len(answers.examples):,} evenly spaced texts of the {answers.total:,} of "
            f"{answers.what}; --limit changes their number."
        )


def _tiles(facts: Facts) -> Iterator[Html]:
    """The figures to be seen first."""
    name, best = facts.metric, facts.best
    if facts.has_ended and name in facts.results["test"]:
        yield _tile(_figure(name, facts.results["test"][name]), f"{_words(name)}, test")
    if best:
        yield _tile(_figure(name, best[1][name]), f"{_words(name)}, validation")
        yield _tile(f"{best[0]:,}", "best step")
    yield _tile(f"{facts.parameters:,}", "parameters")
    yield _tile(str(timedelta(seconds=round(facts.seconds))), "wall time, h:mm:ss")


def _tile(figure: str, name: str) -> Html:
    return element("div", element("strong", figure), element("span", name, class_="soft"))


def _entries(facts: Facts) -> Iterator[tuple[str, object]]:
    config, results = facts.run.config, facts.results
    yield "model", _describe(config.model)
    if facts.sizes:
        yield "data", ", ".join(f"{count:,} {name}" for name, count in facts.sizes.items())
    batch = config.batch
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs} epochs"
    yield "batches", f"{batch.size} rows of at most {batch.max_source_length} tokens, {epochs}"
    optimizer = config.optimizer
    rate = f"learning rate {optimizer.learning_rate:g}, {optimizer.schedule}, {optimizer.warmup_steps} steps of warm-up"
    yield "optimizer", f"{optimizer.name}, {rate}"
    if facts.has_ended:
        yield "trained on", f"{results.get('device')}, jax {results.get('jax')}"
    ours = f"flax-transformer {version('flax-transformer')}, jax {jax.__version__}"
    yield "page made on", f"{jax.devices()[0].device_kind}, {ours}"
    yield "reproduce", element("code", reproduce(facts))
    if not facts.has_ended:
        go_on = f"flax-transformer train {config.data.task} --run {shlex.quote(str(facts.run.folder))} --resume"
        yield "go on", element("code", go_on)


def reproduce(facts: Facts) -> str:
    """The command that trains the same model anew, given the same data and versions."""
    folder = facts.run.folder
    config, new = shlex.quote(str(folder / "config.json")), shlex.quote(f"{folder}-again")
    return f"flax-transformer train {facts.run.config.data.task} --config {config} --run {new}"


def _describe(model: ModelConfig) -> str:
    layers = f"{model.num_encoder_layers} encoder layers"
    if model.architecture == "seq2seq":
        layers = f"{model.num_encoder_layers} encoder and {model.num_decoder_layers} decoder layers"
    width = f"width {model.d_model}, {model.num_heads} heads, feed-forward {model.d_ff}"
    vocabulary = f"vocabulary {model.source_vocab_size:,}"
    classes = f", {model.num_classes} classes" if model.architecture == "classifier" else ""
    order = "pre-LN" if model.norm_first else "post-LN"
    kind = f"{model.architecture}, {layers}, {width}, {order}, {model.positions} positions"
    return f"{kind}, {vocabulary}{classes}, {model.dtype}"


def _scores(facts: Facts, answers: Answers | None) -> Html:
    """Validation, test, and what this page has predicted where that is something else; those of groups side by side."""
    columns: dict[str, Mapping[str, Any]] = {}
    if facts.best:
        columns[f"validation, step {facts.best[0]:,}"] = facts.best[1]
    if facts.has_ended:
        columns |= _by_group(facts, "test", facts.results["test"])
    if answers is not None and (answers.is_limited or answers.what != "the test split" or not facts.has_ended):
        columns |= _by_group(facts, f"this page, {len(answers.examples):,} texts", answers.scores)
    names = list(dict.fromkeys(name for scores in columns.values() for name in scores if "/" not in name))
    rows = [
        [_words(name), *(_figure(name, scores[name]) if name in scores else "" for scores in columns.values())]
        for name in names
    ]
    return section("Scores", table(["", *columns], rows)) if rows else Html()


def _by_group(facts: Facts, title: str, scores: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The scores of each group under a title of its own."""
    groups = ["", *(name.removesuffix(f"/{facts.metric}") for name in scores if name.endswith(f"/{facts.metric}"))]
    if len(groups) == 1:
        return {title: scores}
    task = facts.run.config.data.task
    columns = {f"{title}, {group_name(task, '')}": scores}
    for group in groups[1:]:
        part = {name.removeprefix(f"{group}/"): value for name, value in scores.items() if name.startswith(f"{group}/")}
        columns[f"{title}, {group_name(task, group)}"] = part
    return columns


def _words(name: str) -> str:
    return name.replace("_", " ")


def _figure(name: str, value: Any) -> str:
    return format_score(name, value).removeprefix(_words(name)).strip()


HEAD_STYLE = """
.warning { color: var(--warning); margin: .5rem 0; }
.facts { grid-template-columns: 7.5rem 1fr; }
@media (max-width: 34rem) { .facts { grid-template-columns: 1fr; } }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .5rem .9rem; }
.tiles strong { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.tiles span { font-size: .85rem; }
"""
