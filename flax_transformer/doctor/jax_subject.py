"""A JAX model under examination: Flax NNX, Linen with its variables, or a plain function. Imported only for one."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx
from jaxtyping import Float, Int

from flax_transformer.config import ModelConfig
from flax_transformer.doctor.calling import Call
from flax_transformer.doctor.hints import find_hints
from flax_transformer.doctor.jax_trace import Interpreter, Recording, clamped_lookups
from flax_transformer.doctor.outputs import find_logits, one_number
from flax_transformer.doctor.subject import (
    Batch,
    ExaminationError,
    Gradient,
    Structure,
    Trace,
    stand_in,
    starts_at_zero,
)

Forward = Callable[..., Any]


class JaxSubject:
    """Implements :class:`flax_transformer.doctor.subject.Subject`. The model itself is never touched: all is pure.

    Args:
        variables: of a Linen module.
        x64: compute in float64 as far as the model lets itself.
    """

    framework = "jax"

    def __init__(self, model: Any, forward: Forward | None, variables: Any, x64: bool) -> None:
        self.call: Call | None = None
        self.epsilon = float(np.finfo(np.float64 if x64 else np.float32).eps)
        self.output_note = ""
        self.zeros: list[str] = []
        self._forward = forward
        self._x64 = x64
        self._source = _Functional.of(model, variables)
        self._parameters: Any = None
        self._jitted: dict[Any, Callable[..., Any]] = {}
        self._recordings: dict[Any, Recording] = {}
        self._generators: dict[Any, Callable[..., Any]] = {}
        self._norms: Callable[..., Any] | None = None

    @contextlib.contextmanager
    def ready(self) -> Iterator[None]:
        """Inside, arrays may be float64, and parameters are."""
        with jax.enable_x64(self._x64):
            dtype = jnp.float64 if self._x64 else jnp.float32
            leaves = [self._usable(path, leaf, dtype) for path, leaf in _named_leaves(self._source.parameters)]
            self._parameters = jax.tree.unflatten(jax.tree.structure(self._source.parameters), leaves)
            yield

    def _usable(self, path: str, leaf: Any, dtype: Any) -> Any:
        """In ``dtype``, and small numbers in the place of a weight that is all zero."""
        widened = _widened(leaf, dtype)
        if self._source.is_trainable(path, widened) and starts_at_zero(path, widened):
            self.zeros.append(path)
            return jnp.asarray(stand_in(widened.shape), dtype)
        return widened

    def function(self) -> Callable[..., Any]:
        return self._source.signature

    def table_sizes(self) -> list[int]:
        return self._source.table_sizes()

    def hints(self) -> Mapping[str, int]:
        return find_hints(self._source.model)

    @property
    def takes_masks(self) -> bool:
        return self.call is not None and self.call.tells_padding

    def _inputs(self, batch: Batch) -> tuple[list[str], list[Any], list[str]]:
        """Names of arguments, their arrays, and which of them hold token ids."""
        if self._forward is not None:
            given = {"source": batch.source, "target": batch.target}
            names = [name for name, ids in given.items() if ids is not None]
            return names, [jnp.asarray(given[name], jnp.int32) for name in names], names
        assert self.call is not None, "the call is found before anything is run"
        args, kwargs = self.call.build(batch)
        names = [*self.call.positional, *kwargs]
        words = [self.call.arguments[name].words for name in names]
        ids = [word if word in ("source", "target") else "" for word in words]
        return names, [self._array(value) for value in (*args, *kwargs.values())], ids

    def _array(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray):
            return value
        return jnp.asarray(value, jnp.int32) if np.issubdtype(value.dtype, np.integer) else jnp.asarray(value)

    def _function(self, batch: Batch) -> tuple[Callable[..., Any], list[Any], list[str]]:
        """``f(parameters, *arrays) -> (logits, *others)``, its arrays, and the input that each of them is."""
        names, values, ids = self._inputs(batch)
        fixed = {n: v for n, v in zip(names, values, strict=True) if not isinstance(v, jax.Array)}
        moving = [n for n in names if n not in fixed]
        positional = set(self.call.positional) if self.call is not None else set(names)

        def run(parameters: Any, *arrays: Any) -> Any:
            given = {**fixed, **dict(zip(moving, arrays, strict=True))}
            model = self._source.bind(parameters)
            if self._forward is not None:
                output = self._forward(model, *(given[name] for name in names))
            else:
                args = [given[name] for name in names if name in positional]
                output = model(*args, **{name: given[name] for name in names if name not in positional})
            outputs = find_logits(output, batch, sequence_first=False)
            self.output_note = outputs.note
            return outputs.logits, *outputs.others

        return (
            run,
            [v for v in values if isinstance(v, jax.Array)],
            [i for n, i in zip(names, ids, strict=True) if n in moving],
        )

    def logits(self, batch: Batch) -> Float[np.ndarray, " rows *rest"]:
        run, arrays, ids = self._function(batch)
        # What is closed over is the same for batches of one shape, which jit tells apart by itself.
        key = (self.call, *(array.shape for array in arrays))
        if not self._recordings:
            self._record(key, run, ids, arrays)
        if key in self._recordings:  # compiled already, and it knows the logits too
            return np.asarray(self._recordings[key].logits(self._parameters, arrays), np.float64)
        if key not in self._jitted:
            self._jitted[key] = jax.jit(lambda *inputs: run(*inputs)[0], compiler_options=_options())
        return np.asarray(self._jitted[key](self._parameters, *arrays), np.float64)

    def logits_again(self, batch: Batch) -> Float[np.ndarray, " rows *rest"]:
        kept = self._parameters
        self._parameters = jax.tree.map(_other_key, kept)
        try:
            return self.logits(batch)
        finally:
            self._parameters = kept

    def trace(self, batch: Batch) -> Trace:
        run, arrays, ids = self._function(batch)
        key = (self.call, *(array.shape for array in arrays))
        if key not in self._recordings:
            self._recordings[key] = self._recording(run, ids)
        return self._recordings[key].trace(self._parameters, arrays)

    def _recording(self, run: Callable[..., Any], ids: Sequence[str]) -> Recording:
        names = [name for name, _ in _named_leaves(self._parameters)]
        return Recording(run, names, ids, _options())

    def _record(self, key: Any, run: Callable[..., Any], ids: Sequence[str], arrays: Sequence[Any]) -> None:
        """One program less to compile, where the operations can be recorded at all."""
        recording = self._recording(run, ids)
        with contextlib.suppress(Exception):  # if it is the model that fails, it will do so again
            recording.logits(self._parameters, arrays)
            self._recordings[key] = recording

    def plain_trace(self, batch: Batch) -> Trace | None:
        return None

    def clamped_lookups(self, batch: Batch) -> Sequence[tuple[int, int]]:
        run, arrays, ids = self._function(batch)
        return clamped_lookups(run, ids, self._parameters, arrays, _options())

    def numpy(self, value: Any) -> np.ndarray:
        return np.asarray(value, np.float64)

    def gradients(self, batch: Batch, labels: Int[np.ndarray, " rows *length"]) -> list[Gradient]:
        run, arrays, _ = self._function(batch)
        named = _named_leaves(self._parameters)
        leaves, tree = jax.tree.flatten(self._parameters)
        trainable = [self._source.is_trainable(path, leaf) for path, leaf in named]
        chosen = [leaf for leaf, flag in zip(leaves, trainable, strict=True) if flag]
        fixed = [leaf for leaf, flag in zip(leaves, trainable, strict=True) if not flag]
        if not chosen:
            return []

        def norms(chosen: list[Any], fixed: list[Any], arrays: list[Any], labels: Any) -> list[Any]:
            def loss(chosen: list[Any]) -> Any:
                one, other = iter(chosen), iter(fixed)
                merged = jax.tree.unflatten(tree, [next(one) if flag else next(other) for flag in trainable])
                logits = run(merged, *arrays)[0]
                logits = logits.astype(jnp.promote_types(jnp.float32, leaves[0].dtype))
                return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1).mean()

            return [jnp.linalg.norm(jnp.ravel(leaf)) for leaf in jax.grad(loss)(chosen)]

        if self._norms is None:  # all batches that are asked about have one shape
            self._norms = jax.jit(norms, compiler_options=_options())
        found = self._norms(chosen, fixed, arrays, jnp.asarray(labels))
        names = [name for (name, _), flag in zip(named, trainable, strict=True) if flag]
        return [
            Gradient(name, tuple(leaf.shape), float(norm))
            for name, leaf, norm in zip(names, chosen, found, strict=True)
        ]

    def structure(self) -> Structure:
        return self._source.structure()

    def is_random_in_training(self, batch: Batch) -> bool | None:
        return self._source.has_dropout()

    def changed_state(self) -> Sequence[str]:
        return ()

    def call_loss(
        self, loss: Callable[..., Any], fake: Callable[[Batch], np.ndarray] | None, inputs: Sequence[np.ndarray]
    ) -> float:
        arrays = [jnp.asarray(array, jnp.int32) for array in inputs]
        bound = self._source.bind(self._parameters)
        value = loss(bound if fake is None else _Fake(bound, fake), *arrays)
        return one_number(value[0] if isinstance(value, tuple | list) else value)

    def generate(
        self, generate: Callable[..., Any], inputs: np.ndarray, steps: int
    ) -> tuple[Int[np.ndarray, "rows length"], list[np.ndarray]]:
        ids = jnp.asarray(inputs, jnp.int32)
        try:
            return self._observed(generate, ids, steps)
        except Exception:  # whatever cannot be traced is run as it is, and its steps are not seen
            made = generate(self._source.bind(self._parameters), ids, steps)
            return np.asarray(getattr(made, "tokens", made)), []

    def _observed(self, generate: Callable[..., Any], ids: Any, steps: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """What a greedy step takes the argmax of is its logits."""

        def call(parameters: Any, ids: Any) -> Any:
            made = generate(self._source.bind(parameters), ids, steps)
            return getattr(made, "tokens", made)

        def run(parameters: Any, ids: Any) -> tuple[Any, list[Any]]:
            interpreter = Interpreter()
            closed = jax.make_jaxpr(call)(parameters, ids)
            outputs = interpreter.run(closed, interpreter.inputs([*jax.tree.leaves(parameters), ids]))
            return outputs[0].value, interpreter.argmax_inputs

        key = (generate, ids.shape, steps)
        if key not in self._generators:
            self._generators[key] = jax.jit(run, compiler_options=_options())
        made, logits = self._generators[key](self._parameters, ids)
        rows = len(made)
        seen = [np.asarray(value, np.float64).reshape(rows, -1, value.shape[-1])[:, -1] for value in logits]
        return np.asarray(made), seen


def _options() -> dict[str, Any]:
    """Programs that run for milliseconds are not worth seconds of optimization."""
    on_cpu = jax.default_backend() == "cpu"
    return {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False} if on_cpu else {}


def _compute_in_float64(module: nnx.Module) -> None:
    """Where a module says that it computes in float32: by itself, or in this project by its config."""
    if getattr(module, "dtype", None) == jnp.float32:
        vars(module)["dtype"] = jnp.float64
    config = getattr(module, "config", None)
    if isinstance(config, ModelConfig) and config.dtype == "float32":
        vars(module)["config"] = replace(config, dtype="float64")


def _widened(leaf: Any, dtype: Any) -> Any:
    """Keys of random generators and integers stay what they are."""
    if isinstance(leaf, np.ndarray | jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating):
        return jnp.asarray(leaf, dtype)
    return leaf


def _other_key(leaf: Any) -> Any:
    """A key of a random generator in the place of another; what is none stays what it is."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.fold_in(leaf, 1) if is_key else leaf


def _named_leaves(tree: Any) -> list[tuple[str, Any]]:
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(".".join(_word(key) for key in path), leaf) for path, leaf in found]


def _word(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


class _Fake:
    """Takes the place of the model in the user's loss: logits from a rule, whatever way it is called."""

    def __init__(self, model: Any, rule: Callable[[Batch], np.ndarray]) -> None:
        self._model = model
        self._rule = rule

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        ids = [value for value in (*args, *kwargs.values()) if _is_ids(value)]
        if not ids:
            raise ExaminationError("the loss does not hand token ids to the model")
        target = ids[-1] if len(ids) == 1 else ids[1]
        return jnp.asarray(self._rule(Batch(None, None, np.asarray(target), None)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _is_ids(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray) and value.ndim == 2 and np.issubdtype(value.dtype, np.integer)


class _Functional:
    """A plain function of its inputs: all that it holds is a constant."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.parameters: Any = {}

    @staticmethod
    def of(model: Any, variables: Any) -> "_Functional":
        if isinstance(model, nnx.Module):
            return _Nnx(model)
        if isinstance(model, linen.Module):
            if variables is None:
                raise ExaminationError("a Linen module comes without weights: return (module, variables)")
            return _Linen(model, variables)
        return _Functional(model)

    @property
    def signature(self) -> Callable[..., Any]:
        return self.model

    def bind(self, parameters: Any) -> Callable[..., Any]:
        return self.model

    def table_sizes(self) -> list[int]:
        return []

    def is_trainable(self, path: str, leaf: Any) -> bool:
        return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)

    def structure(self) -> Structure:
        return Structure()

    def has_dropout(self) -> bool | None:
        return None


class _Nnx(_Functional):
    def __init__(self, model: nnx.Module) -> None:
        super().__init__(model)
        self._graph, state = nnx.split(model)
        self.parameters = nnx.to_pure_dict(state)
        self._state = state
        self._trainable = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}

    @property
    def signature(self) -> Callable[..., Any]:
        return self.model.__call__

    def bind(self, parameters: Any) -> Callable[..., Any]:
        state = jax.tree.map(lambda leaf: leaf, self._state)
        nnx.replace_by_pure_dict(state, parameters)
        model = nnx.merge(self._graph, state)
        model.eval()
        if jnp.result_type(float) == jnp.float64:
            for _, module in nnx.iter_modules(model):
                _compute_in_float64(module)
        return model

    def table_sizes(self) -> list[int]:
        return [module.num_embeddings for _, module in nnx.iter_modules(self.model) if isinstance(module, nnx.Embed)]

    def is_trainable(self, path: str, leaf: Any) -> bool:
        return path in self._trainable and super().is_trainable(path, leaf)

    def structure(self) -> Structure:
        shared, identical, depth = [], [], 0
        for path, module in nnx.iter_modules(self.model):
            for name, value in vars(module).items():
                layers = _layers(value)
                if len(layers) < 2:
                    continue
                depth = max(depth, len(layers))
                place = ".".join(map(str, (*path, name)))
                if len({id(layer) for layer in layers}) < len(layers):
                    shared.append(place)
                elif _equal_weights(layers[0], layers[1]):
                    identical.append(place)
        norm_first = next(
            (vars(m)["norm_first"] for _, m in nnx.iter_modules(self.model) if "norm_first" in vars(m)), None
        )
        return Structure(shared=shared, identical=identical, norm_first=norm_first, depth=depth)

    def has_dropout(self) -> bool | None:
        rates = [
            getattr(module, "rate", 0)
            for _, module in nnx.iter_modules(self.model)
            if "dropout" in type(module).__name__.lower()
        ]
        return any(isinstance(rate, float) and rate > 0 for rate in rates) if rates else None


def _layers(value: Any) -> list[Any]:
    if isinstance(value, nnx.Module) and not isinstance(value, nnx.List):
        return []
    try:
        items = list(value) if isinstance(value, list | tuple | nnx.List) else []
    except TypeError:
        return []
    return [item for item in items if isinstance(item, nnx.Module)]


def _equal_weights(one: nnx.Module, other: nnx.Module) -> bool:
    pairs = zip(jax.tree.leaves(nnx.state(one, nnx.Param)), jax.tree.leaves(nnx.state(other, nnx.Param)), strict=False)
    weights = [(a, b) for a, b in pairs if getattr(a, "ndim", 0) >= 2 and float(jnp.std(a)) > 0]
    return bool(weights) and all(a.shape == b.shape and bool((a == b).all()) for a, b in weights)


class _Linen(_Functional):
    def __init__(self, model: linen.Module, variables: Any) -> None:
        super().__init__(model)
        self.parameters = variables if "params" in variables else {"params": variables}

    @property
    def signature(self) -> Callable[..., Any]:
        return self.model.__call__

    def bind(self, parameters: Any) -> Callable[..., Any]:
        return self.model.bind(parameters)

    def table_sizes(self) -> list[int]:
        return [leaf.shape[0] for path, leaf in _named_leaves(self.parameters) if path.endswith("embedding")]

    def is_trainable(self, path: str, leaf: Any) -> bool:
        return path.startswith("params.") and super().is_trainable(path, leaf)
