"""Where the decoder looks: cross-attention over one example."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from flax_transformer.config import GenerationConfig
from flax_transformer.decoding.generate import generate, read_tokens
from flax_transformer.intermediates import Recorder, recording
from flax_transformer.nn.models import Seq2Seq
from flax_transformer.pages.heat_map import Cell, heat_map
from flax_transformer.pages.html import Html, element, section
from flax_transformer.report.answers import Answers

_GOOD_LENGTH = 32  # source tokens of the example, about: enough to see something, few enough to read
_HEADS = 8  # that are shown apart
_FAINTEST = 0.02  # weights below are left out


def attention(answers: Answers) -> Html:
    """A section with a heat map of predicted tokens by source tokens; empty where the model has no decoder."""
    model = answers.model
    if not isinstance(model, Seq2Seq):
        return Html()
    index = _example(answers)
    source = _source(answers, index)
    outputs = _generate(answers, source)
    if not outputs:
        return Html()
    weights = cross_attention(model, source, outputs)
    names = answers.run.tokenizer.token_names()
    rows, columns = ([_spelled(answers, token, names) for token in ids] for ids in (outputs, source))
    where = answers.examples.places[index] if answers.examples.places else f"text {index + 1}"
    state = "right" if answers.right[index] else "not as expected"
    note = (
        f"Cross-attention of the last layer for {where}, whose output is {state}. Rows are the predicted tokens, "
        "columns those of the source; a dot stands for a space. The more a token was looked at before the row's token "
        "was written, the stronger its color."
    )
    whole = heat_map(_cells(weights.mean(axis=0), rows, columns), "attention, mean over heads", size=16, rows=rows,
                     columns=columns, gap=0)  # fmt: skip
    heads = [_head(number, one) for number, one in enumerate(weights[:_HEADS], start=1)]
    return section(
        "Attention",
        element("p", note, class_="soft"),
        element("h3", "Mean over heads"),
        element("div", whole, class_="scroll"),
        element("div", *heads, class_="heads") if len(heads) > 1 else "",
    )


def _example(answers: Answers) -> int:
    """Among the right outputs, or all where none is, the one whose source has about the length that shows best."""
    lengths = answers.evaluator.encoded.sources.lengths
    return int(np.argmin(np.abs(lengths - _GOOD_LENGTH) + 10_000 * (~answers.right & answers.right.any())))


def _source(answers: Answers, index: int) -> list[int]:
    sources = answers.evaluator.encoded.sources
    row, _ = sources.padded(np.array([index]), int(sources.lengths[index]), answers.model.config.pad_id)
    return row[0].tolist()


def _generate(answers: Answers, source: Sequence[int]) -> list[int]:
    """The tokens of the output, with the end token where it has one."""
    assert isinstance(answers.model, Seq2Seq)
    limit = GenerationConfig(answers.batch.max_new_tokens, num_tokens=answers.run.tokenizer.entries)
    generation = generate(answers.model, np.array([source]), config=limit)
    end = [answers.model.config.eos_id] * bool(generation.stopped_by_eos[0])
    return read_tokens(generation)[0] + end


def cross_attention(
    model: Seq2Seq, source: Sequence[int], outputs: Sequence[int]
) -> Float[np.ndarray, "heads outputs source"]:
    """Weights of the last layer: row i is where the decoder looked before it wrote output i. Rows sum to 1.

    Args:
        source: token ids without padding.
        outputs: token ids without the begin token.
    """
    begin = jnp.array([[model.config.bos_id, *outputs[:-1]]])
    return np.asarray(_weights(model, jnp.array([list(source)]), begin)[0], np.float32)


@jax.jit
def _weights(
    model: Seq2Seq, source: Int[Array, "batch source"], target: Int[Array, "batch target"]
) -> Float[Array, "batch heads target source"]:
    nodes = [(path, node) for path, node in nnx.iter_graph(model) if isinstance(node, nnx.Module)]
    with recording(Recorder({id(node): ".".join(map(str, path)) for path, node in nodes})) as recorder:
        model(source, target)
    return recorder.values[f"decoder.layers.{model.config.num_decoder_layers - 1}.cross_attention.weights"]


def _spelled(answers: Answers, token: int, names: dict[int, str]) -> str:
    """A token as it stands in the text; special ones by their names."""
    text = answers.run.tokenizer.decode([[token]])[0]
    return text.replace(" ", "·").replace("\n", "⏎") if text else names.get(token, "")


def _cells(
    weights: Float[np.ndarray, "outputs source"], rows: Sequence[str], columns: Sequence[str]
) -> list[list[Cell]]:
    """Faint ones are left out: a page would otherwise hold thousands of squares that nobody can see."""
    return [
        [
            Cell(min(1.0, value**0.5), f"{row} looks at {column}: {value:.2f}") if value >= _FAINTEST else Cell(0.0)
            for column, value in zip(columns, line, strict=True)
        ]
        for row, line in zip(rows, weights.tolist(), strict=True)
    ]


def _head(number: int, weights: Float[np.ndarray, "outputs source"]) -> Html:
    cells = [[Cell(min(1.0, v**0.5) if v >= _FAINTEST else 0.0) for v in row] for row in weights.tolist()]
    size = min(5.0, 300 / weights.shape[1])
    drawn = element("div", heat_map(cells, f"attention of head {number}", size=size, gap=0), class_="head")
    return element("figure", drawn, element("figcaption", f"head {number}"))


ATTENTION_STYLE = """
.heads { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; margin-top: 1.25rem; }
.head { border: 1px solid var(--line); }
"""
