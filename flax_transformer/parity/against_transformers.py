"""Hugging Face's transformers against the twins: weights there and back, one pass, gradients, generated tokens."""

import copy
import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from jaxtyping import Float
from torch.nn import functional

from flax_transformer.config import ModelConfig
from flax_transformer.data.batches import MultilabelBatch, Seq2SeqBatch
from flax_transformer.interop.huggingface.checkpoint import CONFIG_FILE, WEIGHTS_FILE, read_checkpoint
from flax_transformer.interop.huggingface.exporting import write_model
from flax_transformer.interop.huggingface.family import Family, Weights
from flax_transformer.interop.huggingface.importing import read_model
from flax_transformer.interop.huggingface.own import in_their_terms
from flax_transformer.interop.huggingface.weights import to_ours
from flax_transformer.parity import tolerances, torch_side
from flax_transformer.parity.against import (
    Rows,
    beam_config,
    beam_tokens,
    floor_of,
    greedy_tokens,
    new_tokens,
    rows,
    twins,
    with_source,
)
from flax_transformer.parity.cases import Case, take_rows
from flax_transformer.parity.checks import ENTRIES, Result, compare_gradients, measured
from flax_transformer.parity.measure import Arrays, mismatches, scaled_ulp, scaled_ulps
from flax_transformer.parity.pair import Pair, cast
from flax_transformer.parity.targets import Target, with_head
from flax_transformer.parity.torch_side import Outcome, to_numpy
from torch_reference.nn.losses import shift_target

# What a loss leaves out.
_IGNORED = -100
_IDS = ("pad_id", "bos_id", "eos_id")


def checks(target: Target, dtype: str) -> dict[str, Callable[[], list[Result]]]:
    """
    Raises:
        UserError: transformers has no class for the model.
    """
    return checks_of(Theirs(target, dtype), target)


def checks_of(theirs: "Theirs", target: Target) -> dict[str, Callable[[], list[Result]]]:
    """The same of a model that is loaded already."""
    found: dict[str, Callable[[], list[Result]]] = {
        "round trip": lambda: [_round_trip(target, theirs)],
        "stack": lambda: [_stack(theirs)],
        "logits": lambda: [_logits(target, theirs)],
        "loss": lambda: [_loss(theirs)],
        "gradients": lambda: _gradients(theirs),
    }
    if target.model.architecture == "seq2seq":
        search = beam_config(theirs.pair, early_stopping=False)
        found["greedy tokens"] = lambda: greedy_tokens(theirs.pair, theirs.generate(num_beams=1))
        found["beam tokens"] = lambda: beam_tokens(
            theirs.pair,
            theirs.generate(num_beams=search.beam_width, length_penalty=1.0, early_stopping=False),
            search,
        )
    return found


class Theirs:
    """A model of ours that transformers has loaded, and written again.

    Attributes:
        pair: both twins with what was read back, on a batch without label smoothing. A bare encoder has a head for it.
        missing: keys that the class of transformers did not find.
    """

    def __init__(self, target: Target, dtype: str) -> None:
        self.outcomes: list[Outcome] = []
        self.family, self.model, self.missing, self.config, self.weights = _there_and_back(target)
        model, weights = self.config, self.weights
        self.is_bare = not self.family.has_head(model)
        if self.is_bare:
            model, weights = with_head(model, weights)
        case = dataclasses.replace(target, model=model, weights=weights).case(dtype)
        self.pair = Pair(dataclasses.replace(case, config=dataclasses.replace(case.config, label_smoothing=0.0)))
        self.model = in_float64(self.model) if dtype == "float64" else self.model.float()

    @property
    def outcome(self) -> Outcome:
        """One pass of transformers, with gradients under our names; it is run once."""
        if not self.outcomes:
            self.outcomes.append(self._run(self.pair.case, self.model))
        return self.outcomes[0]

    def rounding(self) -> dict[str, float]:
        """The rounding error of each gradient of transformers: float32 against float64, in scaled ULP."""
        narrow, wide = (in_float64(copy.deepcopy(self.model)) for _ in range(2))
        single = cast(self.pair.case, "float32")
        rounded, exact = self._run(single, narrow.float()), self._run(cast(single, "float64"), wide)
        return scaled_ulps(rounded.gradients, exact.gradients, "float32")

    def _run(self, case: Case, model: Any) -> Outcome:
        batch = case.batch
        labels, inputs = _labels(batch), _inputs(batch, case.model, self.family)
        output = model(**inputs, output_hidden_states=True)
        if isinstance(batch, Seq2SeqBatch):
            memory, logits = output.encoder_last_hidden_state, output.logits
        else:
            memory = output.hidden_states[-1]
            logits = self._headed(output, case) if self.is_bare else output.logits
        if isinstance(batch, MultilabelBatch):
            real = labels != _IGNORED
            loss = functional.binary_cross_entropy_with_logits(logits[real], labels[real].to(logits.dtype))
        else:
            loss = functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=_IGNORED)
        model.zero_grad()
        loss.backward()
        intermediates = {"memory": to_numpy(memory), "logits": to_numpy(logits)}
        return Outcome(to_numpy(loss), int((labels != _IGNORED).sum()), intermediates, self._gradients(model))

    def _headed(self, output: Any, case: Case) -> torch.Tensor:
        """What a bare encoder gives, through the head that the twins have."""
        head = [torch.tensor(case.weights[f"head.{name}"]) for name in ("weight", "bias")]
        reads_pooler = case.model.head_hidden != "none"
        return functional.linear(output.pooler_output if reads_pooler else output.last_hidden_state[:, 0], *head)

    def _gradients(self, model: Any) -> dict[str, np.ndarray]:
        keys, computed = self.family.keys_of(self.config), {one.theirs for one in self.family.computed}
        given = {
            name: to_numpy(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
            for name, parameter in model.named_parameters()
            if computed.isdisjoint(keys.forms(name))  # sinusoids, which Marian even trains
        }
        return to_ours(self.family, self.config, given)[0]

    @torch.no_grad()
    def generate(self, **settings: Any) -> Rows:
        """Tokens of the rows that have a source."""
        pair, kept = self.pair, with_source(self.pair)
        inputs = _inputs(take_rows(pair.case.batch, np.flatnonzero(kept)), pair.case.model, self.family)
        found: torch.Tensor = self.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=new_tokens(pair),
            do_sample=False,
            forced_eos_token_id=None,
            decoder_start_token_id=pair.case.model.bos_id,
            **settings,
        )
        return rows(found[:, 1:].numpy(), pair)


def load(folder: Path) -> tuple[Any, set[str]]:
    """The model of a checkpoint folder in the class that it names, and the keys that it lacks."""
    import transformers

    settings: Any = transformers.AutoConfig.from_pretrained(folder)
    cls = getattr(transformers, settings.architectures[0])
    model, info = cls.from_pretrained(folder, attn_implementation="eager", output_loading_info=True)
    assert not info["unexpected_keys"]
    return model.eval(), set(info["missing_keys"])


def in_float64(model: Any) -> Any:
    """The model in float64 throughout, where transformers itself stays in float32 at two places.

    ``T5LayerNorm`` takes its variance in float32, and Marian and Pegasus make their sinusoids in float32.
    """
    from transformers.models.t5.modeling_t5 import T5LayerNorm

    model = model.double()
    for name, module in model.named_modules():
        if isinstance(module, T5LayerNorm):
            module.forward = _exact_norm(module)
        if name.endswith("embed_positions") and type(module).__name__.endswith("SinusoidalPositionalEmbedding"):
            module.weight.data = torch.tensor(_exact_sinusoids(*module.weight.shape))
    return model


def _exact_norm(module: Any) -> Any:
    def forward(x: torch.Tensor) -> torch.Tensor:
        return module.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon))

    return forward


def _exact_sinusoids(length: int, width: int) -> Float[np.ndarray, "length width"]:
    angles = np.arange(length)[:, None] * 10000.0 ** (-np.arange(0, width, 2) / width)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[:, :width]


def _there_and_back(target: Target) -> tuple[Family, Any, set[str], ModelConfig, Weights]:
    """The target in a class of transformers, and what we read of the checkpoint that this class writes."""
    _, settings, tensors = write_model(target.model, dict(target.weights), (), target.model_type)
    with tempfile.TemporaryDirectory() as parent:
        there, back = Path(parent, "there"), Path(parent, "back")
        there.mkdir()
        (there / CONFIG_FILE).write_text(json.dumps(settings), encoding="utf-8")
        safetensors.numpy.save_file(tensors, there / WEIGHTS_FILE, metadata={"format": "pt"})
        model, missing = load(there)
        model.save_pretrained(back)
        family, config, weights, _ = read_model(read_checkpoint(back))
    if config.architecture == "classifier":  # ids that encoders do without come back as another one
        config = dataclasses.replace(config, **{name: getattr(target.model, name) for name in _IDS})
    return family, model, missing, config, weights


def _round_trip(target: Target, theirs: Theirs) -> Result:
    """Weights must come back from transformers bit by bit, and the ids that outputs begin and end with as they were."""
    _, sent = in_their_terms(target.model, dict(target.weights))
    differing = {
        name: mismatches(sent[name].astype(np.float32), weight) if name in sent else float(np.any(weight))
        for name, weight in theirs.weights.items()
    }
    differing |= dict.fromkeys(sent.keys() - theirs.weights.keys(), np.inf)
    # Its class may have a pooler where ours has none; all else must be found.
    differing |= {key: np.inf for key in theirs.missing if "pooler." not in key}
    differing |= {name: np.inf for name in _IDS if getattr(theirs.config, name) != getattr(target.model, name)}
    worst = max(differing, key=lambda name: differing[name])
    return Result("round trip", "local", differing[worst], 0, ENTRIES, worst, note=type(theirs.model).__name__)


def _stack(theirs: Theirs) -> Result:
    pair, expected = theirs.pair, theirs.outcome.intermediates["memory"]
    batch = pair.case.batch
    real = np.arange(batch.source.shape[1]) < batch.source_lengths[:, None]
    figures = {
        side: scaled_ulp(outcome.intermediates["memory"][real], expected[real], pair.dtype)
        for side, outcome in twins(pair).items()
    }
    return measured("memory", "cumulative", figures, floor_of(pair, "memory", real), tolerances.STACK, pair)


def _logits(target: Target, theirs: Theirs) -> Result:
    """Of both twins with the weights that came back, and of the model as it is, whose form may be another."""
    pair, expected = theirs.pair, theirs.outcome.intermediates["logits"]
    counted = _labels(pair.case.batch).numpy() != _IGNORED
    figures = {
        side: scaled_ulp(outcome.intermediates["logits"][counted], expected[counted], pair.dtype)
        for side, outcome in {**twins(pair), "as exported": _as_exported(target, pair)}.items()
    }
    return measured("logits", "cumulative", figures, floor_of(pair, "logits", counted), tolerances.STACK, pair)


def _as_exported(target: Target, pair: Pair) -> Outcome:
    if target.model.num_classes == 0:
        model, weights = with_head(target.model, target.weights)
        target = dataclasses.replace(target, model=model, weights=weights)
    case = target.case(pair.dtype)
    return torch_side.run(case.config, case.weights, pair.case.batch)


def _loss(theirs: Theirs) -> Result:
    pair, outcome = theirs.pair, theirs.outcome
    if outcome.count != pair.torch.count:
        return Result("loss", "cumulative", abs(outcome.count - pair.torch.count), 0, ENTRIES, "count")
    floor = scaled_ulp(pair.rounded.loss, pair.exact.loss, "float32")
    figures = {side: scaled_ulp(ours.loss, outcome.loss, pair.dtype) for side, ours in twins(pair).items()}
    return measured("loss", "cumulative", figures, floor, tolerances.LOSS, pair)


def _gradients(theirs: Theirs) -> list[Result]:
    """Each parameter's gradient, but in tables without the row of padding where transformers does not train it.

    The floor of each is the larger of ours and that of transformers, which adds up some sums in another order.
    """
    pair, ceiling, rounding = theirs.pair, tolerances.GRADIENT[theirs.pair.dtype], theirs.rounding()
    results = []
    for side, outcome in twins(pair).items():
        ours, expected = (
            dataclasses.replace(one, gradients=_comparable(one.gradients, theirs)) for one in (outcome, theirs.outcome)
        )
        floors = {name: max(floor, rounding[name]) for name, floor in pair.gradient_floor.items() if name in rounding}
        results.append(compare_gradients(f"gradients, {side}", pair, ours, expected, floors, ceiling))
    return results


def _comparable(gradients: Arrays, theirs: Theirs) -> dict[str, np.ndarray]:
    """Without what only one side has: the head of a bare encoder, and the row of padding."""
    found = {
        name: gradient for name, gradient in gradients.items() if not (theirs.is_bare and name.startswith("head."))
    }
    skips = any(
        isinstance(module, torch.nn.Embedding) and module.padding_idx is not None for module in theirs.model.modules()
    )
    for name in ("source_table.weight", "target_table.weight"):
        if skips and name in found:
            found[name] = found[name].copy()
            found[name][theirs.config.pad_id] = 0
    return found


def _labels(batch: Any) -> torch.Tensor:
    """What each row, or each place of a target, is to be classified as."""
    if isinstance(batch, MultilabelBatch):
        return torch.tensor(np.where(batch.source_lengths[:, None] > 0, batch.labels, _IGNORED)).long()
    if not isinstance(batch, Seq2SeqBatch):
        return torch.tensor(np.where(batch.source_lengths > 0, batch.labels, _IGNORED)).long()
    _, labels, lengths = shift_target(torch.tensor(batch.target), torch.tensor(batch.target_lengths))
    return torch.where(torch.arange(labels.shape[1]) < lengths[:, None], labels, _IGNORED).long()


def _inputs(batch: Any, model: ModelConfig, family: Family) -> dict[str, torch.Tensor]:
    """A batch as transformers takes it."""
    source, lengths = torch.tensor(batch.source).long(), torch.tensor(batch.source_lengths)
    inputs = {"input_ids": source, "attention_mask": (torch.arange(source.shape[1]) < lengths[:, None]).long()}
    if isinstance(batch, Seq2SeqBatch):
        inputs["decoder_input_ids"] = torch.tensor(batch.target[:, :-1]).long()
    elif model.token_types:
        is_separator = (source == model.eos_id).long()
        inputs["token_type_ids"] = (is_separator.cumsum(dim=1) - is_separator).clamp(max=model.token_types - 1)
    return inputs
