"""The PyTorch twin in the modes of PyTorch: compiled to whole graphs, in inference mode, and in training."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compiled_models import LENGTHS, SOURCE, TARGET, TINY

from flax_transformer.config import GenerationConfig
from torch_reference.decoding.generate import generate
from torch_reference.nn.models import create_model


def test_models_compile_to_whole_graphs_that_hold_their_tables() -> None:
    file = Path(__file__).with_name("compiled_models.py")
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("positions", ["sinusoidal", "rope"])
def test_a_model_that_has_generated_can_be_trained(positions: Any) -> None:
    """Tensors that were made in inference mode cannot be."""
    model: Any = create_model(dataclasses.replace(TINY, positions=positions), 0)
    generate(model.eval(), SOURCE, LENGTHS, GenerationConfig(4))
    model.train()(SOURCE, TARGET, LENGTHS).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
