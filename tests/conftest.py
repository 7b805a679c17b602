"""Shared by the tests of training and the command line: small data, and exports with random weights."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def quick_compilation_of_a_module(request: pytest.FixtureRequest) -> Iterator[None]:
    """Behaviour is tested on programs that run for milliseconds and are not worth seconds of optimization.

    It holds for the processes that tests start, too. Modules that test what XLA makes of a program are ``optimized``.
    """
    if request.node.get_closest_marker("optimized"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 80 labelled texts; one word of each decides its label."""
    rng = random.Random(0)
    lines = ["text,label"]
    for _ in range(80):
        label = rng.choice(["good", "poor"])
        words = rng.choices(["the", "film", "was", "very", "long", "and", "loud"], k=rng.randint(2, 9))
        words.insert(rng.randrange(len(words)), label)
        lines.append(f"{' '.join(words)},{label}")
    path = tmp_path_factory.mktemp("data") / "reviews.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three classes. It is read by many tests, and written by none."""
    from random_exports import save_model

    return save_model(tmp_path_factory.mktemp("exports") / "classifier", "classifier")


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from random_exports import save_model

    return save_model(tmp_path_factory.mktemp("exports") / "generator", "seq2seq")
