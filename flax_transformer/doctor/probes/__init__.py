"""The probes, in the order of an examination. Each takes it and hands back one result or several."""

from collections.abc import Callable, Sequence

from flax_transformer.doctor.examination import Examination
from flax_transformer.doctor.probes.attention import probe_masks, probe_scale, probe_sums, probe_wiring
from flax_transformer.doctor.probes.basics import probe_batch, probe_determinism, probe_outputs, probe_state
from flax_transformer.doctor.probes.generation import probe_generation
from flax_transformer.doctor.probes.influence import probe_causality, probe_history, probe_source
from flax_transformer.doctor.probes.length import probe_length, probe_memory
from flax_transformer.doctor.probes.loss import probe_loss
from flax_transformer.doctor.probes.padding import probe_padding
from flax_transformer.doctor.probes.positions import probe_order, probe_positions, probe_ratio
from flax_transformer.doctor.probes.training import probe_dropout, probe_gradients, probe_initial_loss, probe_structure
from flax_transformer.doctor.result import Result

PROBES: dict[str, Callable[[Examination], Sequence[Result]]] = {
    "outputs": probe_outputs,
    "determinism": probe_determinism,
    "batch": probe_batch,
    "causality": probe_causality,
    "history": probe_history,
    "source": probe_source,
    "positions": probe_positions,
    "order": probe_order,
    "embedding ratio": probe_ratio,
    "padding": probe_padding,
    "masks": probe_masks,
    "weights": probe_sums,
    "wiring": probe_wiring,
    "scale": probe_scale,
    "structure": probe_structure,
    "gradients": probe_gradients,
    "initial loss": probe_initial_loss,
    "dropout": probe_dropout,
    "loss": probe_loss,
    "generation": probe_generation,
    "length": probe_length,
    "memory": probe_memory,
    "state": probe_state,
}
