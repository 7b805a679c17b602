"""A PyTorch model under examination. Imported only where the model is one."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

from flax_transformer.doctor.calling import Call, passes_on
from flax_transformer.doctor.hints import find_hints
from flax_transformer.doctor.outputs import find_logits, one_number
from flax_transformer.doctor.subject import (
    SMALLEST_VOCAB,
    Batch,
    ExaminationError,
    Gradient,
    Structure,
    Trace,
    stand_in,
    starts_at_zero,
)
from flax_transformer.doctor.torch_state import examined, find_modules
from flax_transformer.doctor.torch_trace import Places, Recorder, recorded

Forward = Callable[..., Any]


class TorchSubject:
    """Implements :class:`flax_transformer.doctor.subject.Subject`.

    Args:
        model: examined in place: a deep copy can be unfaithful, where a lambda runs the layers of the original.
        forward: ``forward(model, source, target)``, or ``forward(model, ids)``; None to call the model itself.
    """

    framework = "torch"

    def __init__(self, model: nn.Module, forward: Forward | None, dtype: torch.dtype) -> None:
        self.model = model
        self.call: Call | None = None
        self.epsilon = float(torch.finfo(dtype).eps)
        self.output_note = ""
        self.zeros: list[str] = []
        self._forward = forward
        self._dtype = dtype
        self._modules: dict[str, nn.Module] = {}
        self._vocab = 0
        self._registered = {id(module) for module in model.modules()}
        self._state: dict[str, torch.Tensor] = {}
        tensors = [*model.parameters(), *model.buffers()]
        self._device = tensors[0].device if tensors else torch.device("cpu")

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """The model in evaluation mode and in ``dtype``; afterwards it is what it was.

        Raises:
            ExaminationError: it is of a kind that cannot be put into it.
        """
        _check_weights(self.model)
        with examined(self.model, self._dtype) as modules:
            self._modules = modules
            self._replace_zeros()
            self._state = {name: tensor.detach().clone() for name, tensor in self._named_state()}
            yield

    def _replace_zeros(self) -> None:
        tables = {id(module.weight) for module in self._modules.values() if isinstance(module, nn.Embedding)}
        for name, parameter in self._all_parameters().items():
            is_layer = parameter.is_floating_point() and id(parameter) not in tables
            if is_layer and starts_at_zero(name, parameter.detach().cpu()):
                self.zeros.append(name)
                parameter.data = torch.as_tensor(stand_in(parameter.shape)).to(parameter.data)

    def function(self) -> Callable[..., Any]:
        """What is called, for its parameters to be read."""
        module = self._wrapped()
        if type(module).forward is nn.Module.forward:
            raise ExaminationError(f"{type(module).__name__} has no forward(), so pass forward=: how to get its logits")
        return module.forward

    def _wrapped(self) -> nn.Module:
        """The model behind forward(*args, **kwargs) of what only passes on, as DataParallel and LoRA do."""
        module = self.model
        while len(inner := list(module.children())) == 1 and passes_on(module.forward):
            (module,) = inner
        return module

    def table_sizes(self) -> list[int]:
        """How many rows each embedding table has."""
        return [m.num_embeddings for m in find_modules(self.model).values() if isinstance(m, nn.Embedding)]

    def hints(self) -> Mapping[str, int]:
        """What the model or its config says of special tokens and lengths, under the names in common use."""
        tables = [m for m in find_modules(self.model).values() if isinstance(m, nn.Embedding)]
        pad_ids = {m.padding_idx for m in tables if m.num_embeddings >= SMALLEST_VOCAB and m.padding_idx is not None}
        told = find_hints(self._wrapped())
        return {"pad_id": pad_ids.pop(), **told} if len(pad_ids) == 1 else told

    def output(self, batch: Batch) -> Any:
        """What the model returns, with gradients if they are enabled."""
        if self._forward is not None:
            ids = [self._tensor(array) for array in (batch.source, batch.target) if array is not None]
            return self._forward(self.model, *ids)
        assert self.call is not None, "the call is found before anything is run"
        args, kwargs = self.call.build(batch)
        return self.model(*map(self._tensor, args), **{name: self._tensor(value) for name, value in kwargs.items()})

    def logits(self, batch: Batch) -> Float[np.ndarray, " rows *rest"]:
        with torch.no_grad():
            logits = _to_numpy(self._logits(batch))
        self._vocab = logits.shape[-1]
        return logits

    def logits_again(self, batch: Batch) -> Float[np.ndarray, " rows *rest"]:
        return self.logits(batch)

    def _logits(self, batch: Batch) -> torch.Tensor:
        sequence_first = self.call is not None and self.call.sequence_first
        outputs = find_logits(self.output(batch), batch, sequence_first)
        logits, self.output_note = outputs.logits, outputs.note
        generator = getattr(self.model, "generator", None)
        # The decoder's hidden state: the projection to the vocabulary is another step of whoever wrote the model.
        if isinstance(generator, nn.Module) and self._forward is None and not self._ran(generator, batch):
            logits = generator(logits)
        return logits

    def _ran(self, module: nn.Module, batch: Batch) -> bool:
        if not hasattr(self, "_generator_runs"):
            calls: list[int] = []
            handle = module.register_forward_hook(lambda *_: calls.append(1))
            try:
                self.output(batch)
            finally:
                handle.remove()
            self._generator_runs = bool(calls)
        return self._generator_runs

    @property
    def takes_masks(self) -> bool:
        return self.call is not None and self.call.tells_padding

    def trace(self, batch: Batch) -> Trace:
        return self._record(batch, by_parts=True)

    def plain_trace(self, batch: Batch) -> Trace | None:
        return self._record(batch, by_parts=False)

    def clamped_lookups(self, batch: Batch) -> Sequence[tuple[int, int]]:
        return ()  # beyond a table PyTorch raises an error

    def _record(self, batch: Batch, by_parts: bool) -> Trace:
        places = Places(self._modules)
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        recorder = Recorder(names, places)
        ids = {"source": batch.source, "target": batch.target}
        tensors = {name: self._tensor(array) for name, array in ids.items() if array is not None}
        for name, tensor in tensors.items():
            recorder.add_input(name, tensor)
        with torch.no_grad(), recorded(recorder, places, by_parts):
            output = self._run_on(batch, tensors)
        sequence_first = self.call is not None and self.call.sequence_first
        found = find_logits(output, batch, sequence_first)
        recorder.add_outputs([found.chosen, *found.others])
        return recorder.trace

    def _run_on(self, batch: Batch, tensors: dict[str, torch.Tensor]) -> Any:
        """As :meth:`output`, on the very tensors that the recorder knows."""
        if self._forward is not None:
            return self._forward(self.model, *tensors.values())
        assert self.call is not None, "the call is found before anything is run"
        args, kwargs = self.call.build(batch)
        words = {name: convention.words for name, convention in self.call.arguments.items()}
        given = {}
        for name, value in [*zip(self.call.positional, args, strict=True), *kwargs.items()]:
            known = tensors.get(words[name])
            if known is None:
                given[name] = self._tensor(value)
            else:
                given[name] = known.T if self.call.sequence_first else known
        return self.model(*[given.pop(name) for name in self.call.positional], **given)

    def numpy(self, value: Any) -> np.ndarray:
        return np.asarray(value, np.float64) if isinstance(value, int | float) else _to_numpy(value)

    def gradients(self, batch: Batch, labels: Int[np.ndarray, " rows *length"]) -> list[Gradient]:
        named = self._all_parameters()
        frozen = [parameter for parameter in named.values() if not parameter.requires_grad]
        trainable = {name: parameter for name, parameter in named.items() if parameter.requires_grad}
        assert len(frozen) + len(trainable) == len(named)
        if not trainable:
            return []
        with torch.enable_grad():
            logits = self._logits(batch)
            flat, wanted = logits.reshape(-1, logits.shape[-1]), self._tensor(labels).reshape(-1)
            loss = nn.functional.cross_entropy(flat.double(), wanted)
            if not loss.requires_grad:
                return [Gradient(name, tuple(p.shape), None) for name, p in trainable.items()]
            found = torch.autograd.grad(loss, list(trainable.values()), allow_unused=True)
        return [
            Gradient(name, tuple(parameter.shape), None if grad is None else float(grad.detach().norm()))
            for (name, parameter), grad in zip(trainable.items(), found, strict=True)
        ]

    def _all_parameters(self) -> dict[str, nn.Parameter]:
        found: dict[int, tuple[str, nn.Parameter]] = {}
        for path, module in self._modules.items():
            for name, parameter in module.named_parameters(recurse=False):
                found.setdefault(id(parameter), (f"{path}.{name}".lstrip("."), parameter))
        return dict(found.values())

    def structure(self) -> Structure:
        hidden = [path for path, module in self._modules.items() if id(module) not in self._registered]
        tops = [path for path in hidden if not any(path.startswith(f"{other}.") for other in hidden)]
        return Structure(
            unregistered=tops,
            shared=_shared_layers(self.model),
            identical=_identical_layers(self.model),
            frozen=[
                name
                for name, parameter in self._all_parameters().items()
                if not parameter.requires_grad and "pos" not in name.lower() and parameter.dim() >= 2
            ],
            norm_first=_norm_first(self.model),
            depth=max((len(stack) for stack in self._stacks()), default=0),
        )

    def _stacks(self) -> list[nn.ModuleList | nn.Sequential]:
        return [m for m in self._modules.values() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) > 1]

    def is_random_in_training(self, batch: Batch) -> bool | None:
        modes = {module: module.training for module in self.model.modules()}
        buffers = {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        self.model.train()
        try:
            return not np.array_equal(self.logits(batch), self.logits(batch))
        finally:
            for module, mode in modes.items():
                module.training = mode
            for name, buffer in self.model.named_buffers():  # running statistics
                buffer.copy_(buffers[name])

    def changed_state(self) -> Sequence[str]:
        now = dict(self._named_state())
        return [
            name
            for name, before in self._state.items()
            if name not in now or now[name].shape != before.shape or not torch.equal(now[name], before)
        ]

    def _named_state(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self.model.named_parameters()
        yield from self.model.named_buffers()

    def call_loss(
        self, loss: Callable[..., Any], fake: Callable[[Batch], np.ndarray] | None, inputs: Sequence[np.ndarray]
    ) -> float:
        tensors = [self._tensor(array) for array in inputs]
        model = self.model if fake is None else _Fake(self, fake)
        with torch.no_grad():
            return one_number(_first_scalar(loss(model, *tensors)))

    def generate(
        self, generate: Callable[..., Any], inputs: np.ndarray, steps: int
    ) -> tuple[Int[np.ndarray, "rows length"], list[np.ndarray]]:
        with self._observed(len(inputs)) as seen, torch.no_grad():
            ids = generate(self.model, self._tensor(inputs), steps)
        ids = getattr(ids, "sequences", ids)
        return np.asarray(ids.detach().cpu().numpy() if isinstance(ids, torch.Tensor) else ids), seen

    @contextlib.contextmanager
    def _observed(self, rows: int) -> Iterator[list[np.ndarray]]:
        """Logits that come out of the model, or else out of its last layer: generation may use other methods."""
        by_module: dict[str, list[np.ndarray]] = {}
        vocab = self._vocab

        def observe(path: str, output: Any) -> None:
            logits = _last_logits(output, rows)
            if logits is not None and logits.shape[-1] == vocab:
                by_module.setdefault(path, []).append(logits)

        found: list[np.ndarray] = []
        with contextlib.ExitStack() as stack:
            for path, module in self._modules.items():
                if path == "" or not any(True for _ in module.children()):
                    handle = module.register_forward_hook(lambda m, i, output, path=path: observe(path, output))
                    stack.callback(handle.remove)
            yield found
        found += by_module.get(next(reversed(by_module), ""), []) if "" not in by_module else by_module[""]

    def _tensor(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        if value.dtype == bool:
            return torch.from_numpy(np.ascontiguousarray(value)).to(self._device)
        dtype = torch.long if np.issubdtype(value.dtype, np.integer) else self._dtype
        return torch.from_numpy(np.ascontiguousarray(value)).to(self._device, dtype)


def _check_weights(model: nn.Module) -> None:
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ExaminationError("a ScriptModule cannot be looked into: examine the module that it was made of")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ExaminationError(f"{name} has no shape yet: call the model once, so that its lazy layers get theirs")
        if parameter.is_meta:
            raise ExaminationError(f"{name} is on the meta device and has no values: give the model weights first")


class _Fake(nn.Module):
    """Takes the place of the model in the user's loss: logits from a rule, whatever way it is called."""

    def __init__(self, subject: TorchSubject, rule: Callable[[Batch], np.ndarray]) -> None:
        super().__init__()
        self._subject = (subject,)
        self._rule = rule

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        subject = self._subject[0]
        ids = [value for value in (*args, *kwargs.values()) if _is_ids(value)]
        if not ids:
            raise ExaminationError("the loss does not hand token ids to the model")
        first_first = subject.call is not None and subject.call.sequence_first
        target = ids[-1] if len(ids) == 1 else ids[1]
        rows = target.T if first_first else target
        logits = self._rule(Batch(None, None, rows.cpu().numpy(), None))
        tensor = torch.from_numpy(logits).to(target.device, torch.get_default_dtype())
        return tensor.transpose(0, 1) if first_first else tensor

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattribute__("_subject")[0].model, name)


def _is_ids(value: Any) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.dim() == 2
        and not value.is_floating_point()
        and (value.dtype != torch.bool)
    )


def _first_scalar(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return _first_scalar(value[0])
    return getattr(value, "loss", value)


def _last_logits(output: Any, rows: int) -> np.ndarray | None:
    output = getattr(output, "logits", output)
    output = output[0] if isinstance(output, tuple | list) and output else output
    if not isinstance(output, torch.Tensor) or output.dim() not in (2, 3) or output.shape[0] != rows:
        return None
    return _to_numpy(output if output.dim() == 2 else output[:, -1])


def _to_numpy(value: torch.Tensor) -> np.ndarray:
    return value.detach().to("cpu", torch.float64).numpy()


def _shared_layers(model: nn.Module) -> list[str]:
    """Lists that hold one layer several times, so that all its places have the same weights."""
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList | nn.Sequential)
        and any(list(module).count(layer) > 1 and any(True for _ in layer.parameters()) for layer in module if layer)
    ]


def _identical_layers(model: nn.Module) -> list[str]:
    """Lists whose layers start with equal random weights: they were deep-copied from one."""
    found = []
    for path, module in model.named_modules():
        layers = list(module)[:2] if isinstance(module, nn.ModuleList | nn.Sequential) else []
        if len(layers) < 2 or layers[0] is layers[1] or None in layers:
            continue
        first, second = (
            [p for p in layer.parameters() if p.dim() >= 2 and float(p.detach().std()) > 0] for layer in layers
        )
        if first and len(first) == len(second) and all(map(_is_equal, first, second)):
            found.append(path)
    return found


def _is_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _norm_first(model: nn.Module) -> bool | None:
    for module in model.modules():
        norm_first = getattr(module, "norm_first", getattr(module, "pre_norm", None))
        if isinstance(norm_first, bool):
            return norm_first
    return None
