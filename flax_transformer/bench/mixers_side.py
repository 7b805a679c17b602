"""A stack of layers with one mixer, in a process of its own: its passes, its next tokens, and what it recalls."""

import time
from typing import Any

import numpy as np

from flax_transformer.bench.worker import Candidate
from flax_transformer.config import Mixer

# The task of recall: pairs of a key and a value, noise, then all keys once more. Ids of keys; those above are noise.
PAIRS, KEYS, VALUES = 8, 16, 16
_NO_VALUE, _ASKED = 0, VALUES + 1
_ROWS, _EVALUATED = 8, 64
_LEARNED, _STEPS_BETWEEN = 0.99, 25  # the accuracy at which training ends; steps between two looks at it
_TOKENS_TIMED = 32


class MixerStack(Candidate):
    """
    Args:
        mixer: attention, linear or lstm.
        shape: layers, width, heads and dtype.
    """

    def __init__(self, mixer: Mixer, shape: dict[str, Any]) -> None:
        import jax

        from flax_transformer.config import ModelConfig
        from flax_transformer.runtime import keep_freed_memory

        keep_freed_memory()
        width = shape["width"]
        self.config = ModelConfig(
            architecture="classifier",
            mixer=mixer,
            d_model=width,
            num_heads=shape["heads"],
            # The readings of an LSTM have 6 width^2 weights, attention has 4 width^2: its feed-forward makes up for it.
            d_ff=3 * width if mixer == "lstm" else 4 * width,
            num_encoder_layers=shape["layers"],
            dropout=0.0,
            positions="none",
            num_classes=VALUES,
            dtype=shape["dtype"],
        )
        self.rng = np.random.default_rng(0)
        jax.block_until_ready(jax.jit(lambda x: x + 1)(0))

    def parameters(self) -> int:
        import jax
        from flax import nnx

        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(self._encoder(), nnx.Param)))

    def _encoder(self) -> Any:
        import jax

        from flax_transformer.nn.kernels.rngs import Rngs
        from flax_transformer.nn.layers import Encoder

        return Encoder(self.config, rngs=Rngs(params=jax.random.key(0)))

    def start(self, rows: int, length: int) -> int:
        """Compile a pass and run it once; the bytes that XLA reserves for it beyond inputs and results."""
        import jax
        import jax.numpy as jnp
        from flax import nnx

        from flax_transformer.nn.masks import AttentionMask

        graph, params = nnx.split(self._encoder())
        x, upstream = (jnp.asarray(self._draw(rows, length)) for _ in range(2))

        def run(params: Any, x: Any) -> Any:
            _, backward = jax.vjp(lambda params, x: nnx.merge(graph, params)(x, AttentionMask()), params, x)
            return backward(upstream)

        compiled = jax.jit(run).lower(params, x).compile()
        self.run = lambda: jax.block_until_ready(compiled(params, x))
        self.run()
        memory: Any = compiled.memory_analysis()
        return memory.temp_size_in_bytes

    def _draw(self, rows: int, length: int) -> np.ndarray:
        return self.rng.standard_normal((rows, length, self.config.d_model), np.float32)

    def once(self) -> tuple[float, float]:
        """Seconds of a pass, and seconds that it kept processors busy, which other programs hardly change."""
        start, busy = time.perf_counter(), time.process_time()
        self.run()
        return time.perf_counter() - start, time.process_time() - busy

    def new_token(self, place: int) -> tuple[float, int]:
        """Seconds of a token behind ``place`` others, in the mixer of a decoder alone; and the bytes of its cache."""
        import jax
        import jax.numpy as jnp
        from flax import nnx

        from flax_transformer.nn.kernels.rngs import Rngs
        from flax_transformer.nn.layers import self_mixer
        from flax_transformer.nn.masks import AttentionMask

        mixer = self_mixer(self.config, two_sided=False, rngs=Rngs(params=jax.random.key(0)))
        graph, params = nnx.split(mixer)
        cache = mixer.empty_cache(1, place + _TOKENS_TIMED)

        def add(i: Any, carry: Any) -> Any:
            x, cache = carry
            mask = AttentionMask(causal=True, query_offset=place + i)
            x, cache = nnx.merge(graph, params).mix(x, mask, None, cache)
            return x.astype(jnp.float32), cache

        run = jax.jit(lambda x, cache: jax.lax.fori_loop(0, _TOKENS_TIMED, add, (x, cache))[0])
        x = jnp.asarray(self._draw(1, 1))
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            jax.block_until_ready(run(x, cache))
            seconds.append((time.perf_counter() - start) / _TOKENS_TIMED)
        return float(np.median(seconds[1:])), sum(leaf.nbytes for leaf in jax.tree.leaves(cache))

    def recall(self, distance: int, seconds: float) -> dict[str, Any]:
        """Train to recall over ``distance`` tokens until it is learned, or for ``seconds``, compilation left out.

        Returns:
            The accuracy on rows that were not trained on, and the steps and seconds of the training.
        """
        import jax

        trainer = RecallTrainer(self.config)
        held_out = [draw_recall(np.random.default_rng((1, i)), _ROWS, distance) for i in range(_EVALUATED // _ROWS)]
        trainer.step(held_out[0])
        trainer.accuracy(held_out)
        trainer.reset()
        spent, steps, accuracy = 0.0, 0, 0.0
        while spent < seconds and accuracy < _LEARNED:
            start = time.perf_counter()
            jax.block_until_ready(trainer.step(draw_recall(self.rng, _ROWS, distance)))
            spent += time.perf_counter() - start
            steps += 1
            if steps % _STEPS_BETWEEN == 0:
                accuracy = trainer.accuracy(held_out)
        return {"accuracy": trainer.accuracy(held_out), "steps": steps, "seconds": spent}


Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw_recall(rng: np.random.Generator, rows: int, distance: int) -> Rows:
    """Pairs, noise, and the keys in another order, whose values are asked for.

    From the last pair to the first question it is ``distance`` tokens.

    Returns:
        Ids of keys and of values at each place, each (rows, 2 pairs + distance - 1), and the values to be recalled,
        (rows, pairs).
    """
    keys = rng.integers(KEYS, 2 * KEYS, (rows, 2 * PAIRS + distance - 1))
    values = np.full(keys.shape, _NO_VALUE)
    keys[:, :PAIRS] = rng.permuted(np.tile(np.arange(KEYS), (rows, 1)), axis=1)[:, :PAIRS]
    values[:, :PAIRS] = rng.integers(1, VALUES + 1, (rows, PAIRS))
    order = rng.permuted(np.tile(np.arange(PAIRS), (rows, 1)), axis=1)
    keys[:, -PAIRS:], values[:, -PAIRS:] = np.take_along_axis(keys, order, axis=1), _ASKED
    answers = np.take_along_axis(values, order, axis=1) - 1
    return keys.astype(np.int32), values.astype(np.int32), answers.astype(np.int32)


class RecallTrainer:
    """A stack whose last tokens say which values it recalls, and its training."""

    def __init__(self, config: Any) -> None:
        import jax
        import jax.numpy as jnp
        import optax
        from flax import nnx

        from flax_transformer.nn.kernels.rngs import Rngs
        from flax_transformer.nn.layers import Encoder
        from flax_transformer.nn.linear import Linear, token_table
        from flax_transformer.nn.masks import AttentionMask

        class Model(nnx.Module):
            def __init__(self) -> None:
                rngs = Rngs(params=jax.random.key(0))
                self.keys = token_table(2 * KEYS, config, rngs=rngs)
                self.values = token_table(VALUES + 2, config, rngs=rngs)
                self.encoder = Encoder(config, rngs=rngs)
                self.head = Linear(config.d_model, VALUES, config, axes=("embed", None), rngs=rngs)

            def __call__(self, keys: Any, values: Any) -> Any:
                x = (self.keys(keys) + self.values(values)) * config.d_model**0.5
                return self.head(self.encoder(x, AttentionMask())[:, -PAIRS:]).astype(jnp.float32)

        graph, self._start = nnx.split(Model())
        optimizer = optax.adam(2e-3)

        def loss(params: Any, batch: Any) -> Any:
            keys, values, answers = batch
            logits = nnx.merge(graph, params)(keys, values)
            return optax.softmax_cross_entropy_with_integer_labels(logits, answers).mean()

        @jax.jit
        def step(state: Any, batch: Any) -> Any:
            params, opt_state = state
            value, gradients = jax.value_and_grad(loss)(params, batch)
            updates, opt_state = optimizer.update(gradients, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        self._step, self._optimizer = step, optimizer
        self._answers = jax.jit(lambda params, keys, values: nnx.merge(graph, params)(keys, values).argmax(axis=-1))
        self.reset()

    def reset(self) -> None:
        self._state = self._start, self._optimizer.init(self._start)

    def step(self, batch: Rows) -> Any:
        """The loss of a training step."""
        self._state, loss = self._step(self._state, batch)
        return loss

    def accuracy(self, batches: list[Rows]) -> float:
        right = [np.asarray(self._answers(self._state[0], *batch[:2])) == batch[2] for batch in batches]
        return float(np.mean(right))
