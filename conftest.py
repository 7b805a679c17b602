"""Shared by both suites."""

import signal
from collections.abc import Iterator

import jax
import pytest


def pytest_configure() -> None:
    """A script that starts a command with ``&`` has it ignore Ctrl-C, which tests send to the programs they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def forget_programs_of_a_module() -> Iterator[None]:
    """A process may hold 65,530 memory maps, each compiled program takes some, and beyond that jaxlib crashes."""
    yield
    jax.clear_caches()


@pytest.fixture
def quick_compilation() -> Iterator[None]:
    """Programs that run for milliseconds are not worth seconds of optimisation."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def forget_programs_of_a_slow_test(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("slow"):
        jax.clear_caches()
