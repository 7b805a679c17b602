"""The PyTorch twin in the modes of PyTorch: compiled to whole graphs, in inference mode, and in training."""

import dataclasses
from typing import Any

import pytest
import torch

from flax_transformer.config import GenerationConfig, ModelConfig
from torch_reference.decoding.generate import generate
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


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_a_model_compiles_to_whole_graphs_that_hold_its_tables(changes: dict[str, Any]) -> None:
    config = dataclasses.replace(TINY, **changes)
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
        assert torch.equal(compiled(*inputs), model(*inputs))
    assert 1 <= len(graphs) <= 3
    assert not any("numpy" in graph.code for graph in graphs)


@pytest.mark.parametrize("positions", ["sinusoidal", "rope"])
def test_a_model_that_has_generated_can_be_trained(positions: Any) -> None:
    """Tensors that were made in inference mode cannot be."""
    model: Any = create_model(dataclasses.replace(TINY, positions=positions), 0)
    generate(model.eval(), SOURCE, LENGTHS, GenerationConfig(4))
    model.train()(SOURCE, TARGET, LENGTHS).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
