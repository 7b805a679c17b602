"""How JAX is set up in the commands: compiled programs are cached, freed memory is kept, libraries are quiet."""

import ctypes
import logging
import os
from pathlib import Path

from flax_transformer.config import ModelConfig
from flax_transformer.errors import UserError

# Of <malloc.h>; mallopt(3) explains each.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Tell glibc's malloc not to give memory back; to be called before XLA starts its threads.

    A training step on CPU then takes two thirds of the time: XLA allocates its temporaries anew in every step. They are
    large, so glibc hands each back to the system when it is freed, and the next step pays for every page of it again
    (90,000 page faults a step in a small encoder). One arena that neither maps nor trims keeps the pages, and does as
    well as preloading tcmalloc.

    Returns:
        Whether it took effect: other C libraries have no such switch, and need none or another allocator.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):
        return False
    options = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1}
    return all(mallopt(option, value) == 1 for option, value in options.items())


def set_up_jax() -> None:
    """Keep compiled programs in the user's cache folder, freed memory in the process, and orbax's notes to itself.

    Raises:
        UserError: jax finds no device of the platforms that JAX_PLATFORMS names.
    """
    import jax

    keep_freed_memory()
    if jax.config.jax_compilation_cache_dir is None:  # pyright: ignore[reportAttributeAccessIssue]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "flax-transformer" / "jax"))
    quiet_libraries()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter, without a word, where a GPU is asked for
        reason = " ".join(str(error).split()) or "there is none"
        platforms = os.environ.get("JAX_PLATFORMS")
        asked = (
            f"JAX_PLATFORMS={platforms}; leave it out to take what there is" if platforms else "the default platform"
        )
        raise UserError(f"expected a device of {asked} ({reason[:200]})") from error


def quiet_libraries() -> None:
    """orbax reports each step through absl as a warning, and a failure with a traceback of every thread that it stops;
    but what fails is raised as well.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def require_precision(config: ModelConfig) -> None:
    """Raises :class:`UserError` where a model is to be of float64, which jax would make float32 of without a word."""
    import jax

    wanted = [name for name in ("dtype", "param_dtype") if getattr(config, name) == "float64"]
    if wanted and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise UserError(f"model.{wanted[0]}=float64 needs jax in 64 bits; set JAX_ENABLE_X64=1, or take float32")
