"""Shared by the tests of training and the command line: small data, and programs that are compiled once."""

import random
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache


@pytest.fixture(scope="module")
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Runs of one config share their compiled programs, in this process and in those that it starts."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.getbasetemp() / "jax"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in options}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in options.items():
            jax.config.update(name, value)
            patch.setenv(name.upper(), str(value))
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()  # or it would go on in the modules that follow


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
