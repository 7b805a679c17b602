"""Shared fixtures of the parity suite.

float64: JAX narrows to float32 unless told otherwise, and the global flag changes what float32 code computes. So a test
asks for a precision by fixture, and JAX is told within that test alone (its compiled functions are cached apart):

    def test_of_float64(x64): ... # or @pytest.mark.usefixtures("x64"), or pytestmark for a whole file
    def test_of_both(dtype): ...  # "float32", then "float64": for ModelConfig(dtype=dtype, param_dtype=dtype)

Without torch (it is an extra) nothing here is collected.
"""

import functools
import importlib.util
from collections.abc import Iterator

import jax
import pytest
from jaxtyping import install_import_hook

# The dimensions named on every signature of the twins are checked while these tests run.
_NAMES = "attention dropout layers linear linear_attention losses lstm masks models pooling positions segments"
_NN = [f"nn.{name}" for name in _NAMES.split()]
_DECODING = ["decoding.beam", "decoding.copying", "decoding.generate", "decoding.labels", "decoding.step"]
_MODULES = [*_NN, *_DECODING, "training.matrices", "training.muon", "training.optim"]
_TWINS = [f"{package}.{module}" for package in ("flax_transformer", "torch_reference") for module in _MODULES]
_TWINS += [
    f"flax_transformer.nn.kernels.{name}"
    for name in ("blockwise", "cached", "distances", "matmul", "random_bits", "scan")
]
install_import_hook(_TWINS, "beartype.beartype")
# Arrays of different rank combine only where the code says how.
jax.config.update("jax_numpy_rank_promotion", "raise")

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    # torch.nn's fast path zeroes padded positions and gives NaN for rows without keys: an oracle must not take it.
    torch.backends.mha.set_fastpath_enabled(False)
    # The tensors of a test are small: threads cost them more than they give.
    torch.set_num_threads(1)


def pytest_configure(config: pytest.Config) -> None:
    # nnx.State is annotated with typing.Hashable, which beartype calls out wherever it checks an argument of that type.
    config.addinivalue_line("filterwarnings", "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning")


@pytest.fixture(autouse=True)
def _same_random_weights() -> None:
    """PyTorch draws the same weights for a test, whichever tests ran before it in its process."""
    torch.manual_seed(0)


@pytest.fixture
def x64() -> Iterator[None]:
    """float64 throughout JAX, for this test only. A difference of meaning stands 10^9 above the noise."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest, optimized: None) -> Iterator[str]:
    """The name of a precision, with JAX set up for it. Programs round as users' do: ceilings in ULP are for those."""
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """TPU kernels run as plain code on this machine."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    make_kernel = functools.partial(splash_attention.make_splash_mha_single_device, interpret=True)
    monkeypatch.setattr(splash_attention, "make_splash_mha_single_device", make_kernel)
