"""The PyTorch twin as functions of numpy arrays; each has its twin in :mod:`flax_transformer.parity.flax_side`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from flax_transformer.config import GenerationConfig, ModelConfig, TrainConfig
from flax_transformer.data.batches import MultilabelBatch, PaddedBatch, Seq2SeqBatch
from flax_transformer.intermediates import Recorder, recording
from flax_transformer.parity.measure import HALF, Arrays
from torch_reference.decoding import generate as generation
from torch_reference.decoding import labels
from torch_reference.nn import linear, losses, models
from torch_reference.training import optim
from torch_reference.training import step as training
from torch_reference.training.matrices import is_hidden_matrix


@dataclass(frozen=True)
class Outcome:
    """One pass: the mean loss, its count, the intermediates in order of execution, and gradients if asked for."""

    loss: np.ndarray
    count: int
    intermediates: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]


@dataclass(frozen=True)
class OptimizerState:
    """All that an optimizer step reads and writes, in PyTorch's names and layouts."""

    weights: Arrays
    mean: Arrays
    square: Arrays
    count: int


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """On the host; half precision as float32, since numpy lacks bfloat16."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype.itemsize == 2 else tensor).numpy()


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(np.array(array))


def build(config: ModelConfig, weights: Arrays) -> Any:
    """The model with these weights, in evaluation mode."""
    with torch.device("meta"):
        model = models.create_model(config, seed=0)
    model.load_state_dict({name: _tensor(weight) for name, weight in weights.items()}, strict=True, assign=True)
    return model.eval()


def run(
    config: TrainConfig,
    weights: Arrays,
    batch: PaddedBatch,
    *,
    feed: Arrays | None = None,
    dropout_step: int | None = None,
    gradients: bool = False,
) -> Outcome:
    """One forward pass, and backward if asked for.

    Args:
        feed: intermediate name -> what the rest of the model is to go on with.
        dropout_step: switches dropout on; ``feed`` must then hold the masks.
    """
    model = build(config.model, weights).train(dropout_step is not None)
    names = {id(module): path for path, module in model.named_modules()}
    dtypes = _tap_dtypes(model, names, batch) if feed and config.model.dtype in HALF else {}
    replacements = {name: _tensor(value).to(dtypes.get(name)) for name, value in (feed or {}).items()}
    with torch.set_grad_enabled(gradients), recording(Recorder(names, replacements)) as recorder:
        r_drop = 0.0 if dropout_step is None else config.r_drop
        loss_sum, count = training.batch_loss(model, batch, config.label_smoothing, r_drop=r_drop)
        loss = loss_sum / count.clamp(min=1)
    if gradients:
        loss.backward()
    return Outcome(
        loss=to_numpy(loss),
        count=int(count),
        intermediates={name: to_numpy(value) for name, value in recorder.values.items()},
        gradients=_gradients(model) if gradients else {},
    )


def _gradients(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Of each parameter; of one that the loss does not depend on, zeros."""
    return {name: to_numpy(torch.zeros_like(p) if p.grad is None else p.grad) for name, p in model.named_parameters()}


def _tap_dtypes(model: Any, names: Mapping[int, str], batch: PaddedBatch) -> dict[str, torch.dtype]:
    with torch.no_grad(), recording(Recorder(names)) as recorder:
        training.batch_loss(model, batch)
    return {name: value.dtype for name, value in recorder.values.items()}


@torch.no_grad()
def norm(config: ModelConfig, x: Float[np.ndarray, "rows d_model"]) -> Float[np.ndarray, "rows d_model"]:
    """A fresh norm layer."""
    return to_numpy(linear.norm_layer(config)(_tensor(x)))


def probabilities(logits: Float[np.ndarray, "*batch classes"]) -> Float[np.ndarray, "*batch classes"]:
    """The softmax that stands in the gradient of PyTorch's log_softmax, with its rounding error."""
    x = _tensor(logits).requires_grad_()
    torch.log_softmax(x, dim=-1).backward(torch.zeros_like(x).index_fill_(-1, torch.tensor(0), -1.0))
    assert x.grad is not None
    x.grad[..., 0] += 1.0
    return to_numpy(x.grad)


def clip(gradients: Arrays, max_norm: float) -> dict[str, np.ndarray]:
    parameters = {name: torch.nn.Parameter(_tensor(g)) for name, g in gradients.items()}
    for name, parameter in parameters.items():
        parameter.grad = _tensor(gradients[name])
    optim.clip_by_global_norm(parameters.values(), max_norm)
    return {name: to_numpy(parameter.grad) for name, parameter in parameters.items() if parameter.grad is not None}


def learning_rates(config: TrainConfig, total_steps: int) -> Float[np.ndarray, " steps"]:
    """What the scheduler really sets, step by step, in the parameters' dtype."""
    optimizer = optim.create_optimizer(config.optimizer, torch.nn.Linear(1, 1))
    scheduler = optim.schedule(optimizer, config.optimizer, total_steps)
    rates = []
    for _ in range(total_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(rates).astype(config.model.param_dtype)


class Trainer:
    """Training from given weights, with the whole state open to be read and set."""

    def __init__(self, config: TrainConfig, weights: Arrays, total_steps: int) -> None:
        self.step = training.TrainStep(config, total_steps)
        zeros = {name: np.zeros_like(weight) for name, weight in weights.items()}
        self.state = OptimizerState(weights, zeros, zeros, 0)

    @property
    def state(self) -> OptimizerState:
        model, slots = self.step.model, self.step.optimizer.state

        def read(*slots_of: str) -> Arrays:
            """The first slot that a parameter has; zeros where it has none: Muon keeps no mean of squares."""
            tensors = {
                name: next((slots[p][slot] for slot in slots_of if slot in slots[p]), torch.zeros_like(p))
                for name, p in model.named_parameters()
            }
            return {name: to_numpy(tensor).copy() for name, tensor in tensors.items()}

        weights = {name: to_numpy(p).copy() for name, p in model.named_parameters()}
        return OptimizerState(weights, read("exp_avg", "momentum"), read("exp_avg_sq"), self.step.scheduler.last_epoch)

    @state.setter
    def state(self, state: OptimizerState) -> None:
        model, optimizer, scheduler = self.step.model, self.step.optimizer, self.step.scheduler
        model.load_state_dict({name: _tensor(weight) for name, weight in state.weights.items()}, strict=True)
        for name, parameter in model.named_parameters():
            if self.step.config.optimizer.name == "muon" and is_hidden_matrix(name, parameter):
                optimizer.state[parameter] = {"momentum": _tensor(state.mean[name])}
                continue
            optimizer.state[parameter] = {
                "step": torch.tensor(float(state.count)),
                "exp_avg": _tensor(state.mean[name]),
                "exp_avg_sq": _tensor(state.square[name]),
            }
        scheduler.last_epoch = state.count
        for group, rate in zip(optimizer.param_groups, scheduler.lr_lambdas, strict=True):
            group["lr"] = rate(state.count)

    def __call__(self, batch: PaddedBatch, keep: Sequence[Arrays] | None = None) -> training.Metrics:
        masks = None if keep is None else [{name: _tensor(mask) for name, mask in part.items()} for part in keep]
        return self.step(batch, masks)


def update(config: TrainConfig, state: OptimizerState, gradients: Sequence[Arrays], total_steps: int) -> OptimizerState:
    """The optimizer alone, fed with gradients: as many steps as there are."""
    trainer = Trainer(config, state.weights, total_steps)
    trainer.state = state
    for of_step in gradients:
        for name, parameter in trainer.step.model.named_parameters():
            parameter.grad = _tensor(of_step[name])
        if config.optimizer.max_grad_norm:
            optim.clip_by_global_norm(trainer.step.model.parameters(), config.optimizer.max_grad_norm)
        trainer.step.optimizer.step()
        trainer.step.scheduler.step()
    return trainer.state


def label_probabilities(
    config: ModelConfig, weights: Arrays, batch: MultilabelBatch
) -> Float[np.ndarray, "batch classes"]:
    """Of each label of each text."""
    source, lengths = _tensor(batch.source), _tensor(batch.source_lengths)
    return to_numpy(labels.label_probabilities(build(config, weights), source, lengths))


def decide_labels(
    probabilities: Float[np.ndarray, "batch classes"], thresholds: Sequence[float]
) -> Bool[np.ndarray, "batch classes"]:
    return to_numpy(labels.decide_labels(_tensor(probabilities), thresholds))


@torch.no_grad()
def decode_cached(config: ModelConfig, weights: Arrays, batch: Seq2SeqBatch) -> Float[np.ndarray, "batch target vocab"]:
    """Logits of the decoder's input, one token at a time over the cache."""
    model = build(config, weights)
    source, lengths = _tensor(batch.source), _tensor(batch.source_lengths)
    decoder_input, _, _ = losses.shift_target(_tensor(batch.target), _tensor(batch.target_lengths))
    memory = model.decoder.project_memory(model.encode(source, lengths), lengths)
    cache = model.empty_cache(len(source), decoder_input.shape[1])
    steps = []
    for offset in range(decoder_input.shape[1]):
        token = decoder_input[:, offset : offset + 1]
        logits, cache = model.decode(token, memory, lengths, offset=offset, cache=cache)
        steps.append(to_numpy(logits))
    return np.concatenate(steps, axis=1)


@torch.no_grad()
def beam_search(
    config: ModelConfig, weights: Arrays, batch: Seq2SeqBatch, search: GenerationConfig
) -> Int[np.ndarray, "batch new"]:
    """The best tokens that a beam search finds."""
    source, lengths = _tensor(batch.source), _tensor(batch.source_lengths)
    return to_numpy(generation.generate(build(config, weights), source, lengths, search).tokens)


@torch.no_grad()
def generate(
    config: ModelConfig, weights: Arrays, batch: Seq2SeqBatch, new_tokens: int
) -> tuple[Int[np.ndarray, "batch new"], Float[np.ndarray, "batch new"]]:
    """Greedy tokens, and by how much the best logit leads the second at each of them, in scaled ULP."""
    model = build(config, weights)
    source, lengths = _tensor(batch.source), _tensor(batch.source_lengths)
    generated = generation.generate(model, source, lengths, GenerationConfig(new_tokens))
    begin = torch.full((len(source), 1), config.bos_id)
    logits = model(source, torch.cat([begin, generated.tokens[:, :-1]], dim=1), lengths, generated.lengths)
    best = logits.topk(2).values
    leads = (best[..., 0] - best[..., 1]) / logits.abs().amax(dim=(0, 2)) / torch.finfo(logits.dtype).eps
    behind_the_end = torch.arange(new_tokens) >= generated.lengths[:, None]
    return to_numpy(generated.tokens).astype(np.int32), to_numpy(leads.masked_fill(behind_the_end, torch.inf))
