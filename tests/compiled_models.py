"""The PyTorch twin compiled to whole graphs: exits with 1 after a line for each model that is not.

In a process of its own, since the type checks that the parity suite installs cannot be traced.
"""

import dataclasses
import sys
from typing import Any

import torch

from flax_transformer.config import ModelConfig
from torch_reference.nn.models import create_model

SOURCE, TARGET = torch.tensor([[4, 5, 6, 7, 9], [8, 9, 4, 0, 0]]), torch.tensor([[1, 5, 6, 3], [1, 7, 2, 0]])
LENGTHS = torch.tensor([5, 3])
TINY = ModelConfig(
    d_model=16,
    num_heads=2,
    d_ff=32,
    num_encoder_layers=1,
    num_decoder_layers=1,
    source_vocab_size=31,
    target_vocab_size=31,
    dropout=0.0,
)
MODELS: dict[str, dict[str, Any]] = {
    "sinusoidal": {},
    "sinusoidal in halves": {"positions": "sinusoidal_halves"},
    "rope": {"positions": "rope", "smeared_keys": True},
    "relative": {"positions": "none", "relative_buckets": 8, "gated": True},
    "plain attention": {"attention_backend": "xla"},
    "linear attention": {"mixer": "linear"},
    "lstm": {"encoder_mixer": "lstm"},
    "classifier": {"architecture": "classifier", "positions": "learned"},
}


def problem(config: ModelConfig) -> str:
    """What is wrong with the graphs of a model; empty if they are whole, compute the same and hold its tables."""
    model: Any = create_model(config, 0)
    graphs = []

    def keep(graph: torch.fx.GraphModule, _: object) -> Any:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend=keep)
    # Further lengths make a graph for any length.
    for batch in ((SOURCE, TARGET, LENGTHS), (SOURCE[:, :4], TARGET[:, :3], LENGTHS - 1), (SOURCE, TARGET, LENGTHS)):
        inputs = batch if config.architecture == "seq2seq" else (batch[0], batch[2])
        try:
            output = compiled(*inputs)
        except Exception as error:
            return f"the graph ends early: {error}"
        if not torch.equal(output, model(*inputs)):
            return "compiled, it computes something else"
    if not 1 <= len(graphs) <= 3:
        return f"expected a graph or two, got {len(graphs)}"
    return "tables are computed in the graph" if any("numpy" in graph.code for graph in graphs) else ""


if __name__ == "__main__":
    problems = {name: problem(dataclasses.replace(TINY, **changes)) for name, changes in MODELS.items()}
    told = [f"{name}: {text}" for name, text in problems.items() if text]
    print("\n".join(told))
    sys.exit(bool(told))
