"""Shared by both suites."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator

import jax
import pytest

_CACHE = "JAX_COMPILATION_CACHE_DIR"
_QUICK = "jax_disable_most_optimizations"


def pytest_configure(config: pytest.Config) -> None:
    # A script that starts a command with ``&`` has it ignore Ctrl-C, which tests send to the programs they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _share_cores()
    # No program is compiled twice in one session, whichever worker or process needs it. Workers inherit the variables.
    if _CACHE not in os.environ:
        os.environ[_CACHE] = tempfile.mkdtemp(prefix="jax-cache-")
        config.add_cleanup(lambda: shutil.rmtree(os.environ.pop(_CACHE), ignore_errors=True))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.01")
    jax.config.update("jax_compilation_cache_dir", os.environ[_CACHE])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.01)


def _share_cores() -> None:
    """Each worker has cores of its own: XLA starts as many threads as it may use cores, in each of them."""
    if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        worker, workers = int(os.environ["PYTEST_XDIST_WORKER"][2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        os.sched_setaffinity(0, cores[worker::workers] or cores)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked ``sample(n)``, n cases are quick, spread evenly over all; the others are slow."""
    cases: dict[tuple[str, int], list[pytest.Item]] = {}
    for item in items:
        if marker := item.get_closest_marker("sample"):
            cases.setdefault((item.nodeid.partition("[")[0], *marker.args), []).append(item)
    for (_, quick), group in cases.items():
        kept = {len(group) * i // quick for i in range(quick)}
        for i, item in enumerate(group):
            if i not in kept:
                item.add_marker("slow")


@pytest.fixture(autouse=True, scope="module")
def forget_programs_of_a_module() -> Iterator[None]:
    """A process may hold 65,530 memory maps, each compiled program takes some, and beyond that jaxlib crashes."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Programs that run for milliseconds are not worth seconds of optimization.

    It holds for the processes that tests start, too. Modules that test what XLA makes of a program are marked
    ``optimized``; tests whose ceilings are in ULP take the fixture of this name.
    """
    if request.node.get_closest_marker("optimized"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, _QUICK.upper(), "1")
        jax.config.update(_QUICK, True)
        yield
        jax.config.update(_QUICK, False)


@pytest.fixture
def optimized() -> Iterator[None]:
    """Programs are compiled with all optimizations, as users' are."""
    before = jax.config.read(_QUICK)
    jax.config.update(_QUICK, False)
    yield
    jax.config.update(_QUICK, before)


@pytest.fixture(autouse=True)
def forget_programs_of_a_slow_test(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("slow"):
        jax.clear_caches()
