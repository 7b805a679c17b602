"""Shared fixtures of the parity suite.

float64: JAX narrows to float32 unless told otherwise, and the global flag changes what float32 code computes. So a test
asks for a tier by fixture, and JAX is told within that test alone (its compiled functions are cached apart):

    def test_of_one_tier(x64): ...      # or @pytest.mark.usefixtures("x64"), or pytestmark for a whole file
    def test_of_both_tiers(dtype): ...  # "float32", then "float64": for ModelConfig(dtype=dtype, param_dtype=dtype)

Without torch (it is an extra) nothing here is collected.
"""

import importlib.util
from collections.abc import Iterator

import jax
import pytest

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    # torch.nn's fast path zeroes padded positions and gives NaN for rows without keys: an oracle must not take it.
    torch.backends.mha.set_fastpath_enabled(False)


@pytest.fixture
def x64() -> Iterator[None]:
    """float64 throughout JAX, for this test only."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a tier, with JAX set up for it."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param
