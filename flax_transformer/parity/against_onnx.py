"""ONNX Runtime against the twins: logits, all at once and token by token over the cache, and greedy tokens."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from flax_transformer.config import ModelConfig
from flax_transformer.data.batches import Seq2SeqBatch
from flax_transformer.interop.onnx_export import save_onnx
from flax_transformer.parity import tolerances
from flax_transformer.parity.against import Rows, floor_of, greedy_tokens, new_tokens, rows, twins, with_source
from flax_transformer.parity.checks import Result, Tokens, measured
from flax_transformer.parity.measure import scaled_ulp
from flax_transformer.parity.pair import Pair
from flax_transformer.parity.targets import Target

Logits = Float[np.ndarray, "batch *target vocab"]


def checks(target: Target, dtype: str) -> dict[str, Callable[[], list[Result]]]:
    return checks_of(Pair(target.case(dtype), backward=False), target)


def checks_of(pair: Pair, target: Target) -> dict[str, Callable[[], list[Result]]]:
    """The same of twins that may have been run before."""
    served = Served(target.model, dict(target.weights))
    found: dict[str, Callable[[], list[Result]]] = {"logits": lambda: [_logits(pair, served)]}
    if target.model.architecture == "seq2seq":
        found["greedy tokens"] = lambda: greedy_tokens(pair, _greedy(pair, served))
    return found


class Served:
    """The graphs of a model in ONNX Runtime."""

    def __init__(self, config: ModelConfig, weights: dict[str, np.ndarray]) -> None:
        import onnxruntime

        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, "served")
            save_onnx(folder, config, weights)
            self.sessions: dict[str, Any] = {
                path.stem: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                for path in sorted(folder.glob("*.onnx"))
            }

    def classify(self, source: Int[np.ndarray, "batch source"], lengths: Int[np.ndarray, " batch"]) -> Logits:
        return self.sessions["model"].run(None, {"source": source, "source_lengths": lengths})[0]

    def start(self, source: Int[np.ndarray, "batch source"], lengths: Int[np.ndarray, " batch"]) -> dict:
        """What the decoder is fed with beside its tokens: the memory, and a cache without tokens."""
        encoder, decoder = self.sessions["encoder"], self.sessions["decoder"]
        memory = encoder.run(None, {"source": source, "source_lengths": lengths})
        names = [output.name for output in encoder.get_outputs()]
        caches = [entry for entry in decoder.get_inputs() if entry.name.startswith("cache.")]
        empty = {entry.name: np.zeros((len(source), entry.shape[1], 0, entry.shape[3]), np.float32) for entry in caches}
        return {"source_lengths": lengths, **dict(zip(names, memory, strict=True)), **empty}

    def decode(self, target: Int[np.ndarray, "batch target"], state: dict) -> tuple[Logits, dict]:
        logits, *cache = self.sessions["decoder"].run(None, {"target": target, **state})
        names = [name for name in state if name.startswith("cache.")]
        return logits, {**state, **dict(zip(names, cache, strict=True))}


def _logits(pair: Pair, served: Served) -> Result:
    """Against both twins; of a generator also token by token."""
    batch = pair.case.batch
    source, lengths = batch.source.astype(np.int64), batch.source_lengths.astype(np.int64)
    if isinstance(batch, Seq2SeqBatch):
        target, state = batch.target[:, :-1].astype(np.int64), served.start(source, lengths)
        steps = []
        whole, _ = served.decode(target, state)
        for place in range(target.shape[1]):
            logits, state = served.decode(target[:, place : place + 1], state)
            steps.append(logits)
        theirs = {"all at once": whole, "token by token": np.concatenate(steps, axis=1)}
        real = np.arange(target.shape[1]) < batch.target_lengths[:, None] - 1
    else:
        theirs, real = {"all rows": served.classify(source, lengths)}, lengths >= 0
    figures = {
        f"{side}, {how}": scaled_ulp(logits[real], outcome.intermediates["logits"][real], pair.dtype)
        for side, outcome in twins(pair).items()
        for how, logits in theirs.items()
    }
    return measured("logits", "cumulative", figures, floor_of(pair, "logits", real), tolerances.STACK, pair)


def _greedy(pair: Pair, served: Served) -> Rows:
    kept, model = with_source(pair), pair.case.model
    source, lengths = (array[kept].astype(np.int64) for array in pair.case.batch[:2])
    state = served.start(source, lengths)
    tokens: Tokens = np.full((len(source), 1), model.bos_id, np.int64)
    for _ in range(new_tokens(pair)):
        logits, state = served.decode(tokens[:, -1:], state)
        tokens = np.concatenate([tokens, logits[:, -1].argmax(axis=-1)[:, None]], axis=1)
    return rows(tokens[:, 1:], pair)
