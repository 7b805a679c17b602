"""A candidate in a fresh process of its own, which stays and is asked one thing at a time."""

import importlib
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from flax_transformer.errors import UserError


class Refused(Exception):  # noqa: N818, it is no error of the program
    """A candidate cannot take part, for the reason that the message gives."""


class Turn(NamedTuple):
    """Seconds until the host was free again and until all was done, and what share of the cores others took."""

    dispatch: float
    seconds: float
    background_load: float


class Candidate:
    """What every candidate has in common."""

    def time(self, steps: int) -> tuple[float, float]:
        """Run ``steps`` steps; seconds until they were under way, and until they were done."""
        raise NotImplementedError

    def turn(self, steps: int) -> Turn:
        """:meth:`time`, with an eye on what else the machine does."""
        if not os.path.exists("/proc/stat"):  # not on Linux
            return Turn(*self.time(steps), background_load=0.0)
        busy, own, start = _busy_seconds(), time.process_time(), time.perf_counter()
        dispatch, seconds = self.time(steps)
        by_others = _busy_seconds() - busy - (time.process_time() - own)
        cores = (time.perf_counter() - start) * len(os.sched_getaffinity(0))
        return Turn(dispatch, seconds, max(0.0, by_others / cores))

    def memory(self) -> dict[str, int]:
        """The most bytes in use so far: of the process (``rss``), and of a ``device`` that has memory of its own."""
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        device = self.device_memory()
        return {"rss": rss} | ({} if device is None else {"device": device})

    def device_memory(self) -> int | None:
        return None


def _busy_seconds() -> float:
    """Processor time that has been spent, by whomever, on the cores that this process may use."""
    names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    with open("/proc/stat", encoding="ascii") as lines:
        fields = [line.split() for line in lines]
    ticks = sum(sum(map(int, row[1:9])) - int(row[4]) - int(row[5]) for row in fields if row[0] in names)
    return ticks / os.sysconf("SC_CLK_TCK")


class Worker:
    """``Worker("flax_transformer.bench.flax_side:Train", config)`` builds that class in a fresh process.

    Args:
        made_by: module and class of the candidate. The module is loaded in the new process only.
        arguments: of the class; plain data.

    Raises:
        Refused: of each call, where the candidate cannot take part: a :class:`UserError` of its own, no memory, or the
            process died.
    """

    def __init__(self, made_by: str, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._requests, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, made_by, arguments), daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process is the end of what can be received

    def call(self, method: str, *arguments: Any) -> Any:
        """What the candidate's method returns."""
        try:
            self._requests.send((method, arguments))
            outcome, value = self._requests.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join()
            raise Refused(_manner_of_death(self._process.exitcode)) from None
        if outcome == "refused":
            raise Refused(value)
        return value

    def close(self) -> None:
        self._requests.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()


def _manner_of_death(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        memory = "; most likely the memory is too small for it" if name in ("SIGKILL", "SIGABRT", "SIGSEGV") else ""
        return f"its process was ended by {name}{memory}"
    return f"its process ended with exit code {code}"


def _serve(requests: Connection, made_by: str, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # compile times are those of a first start
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        _limit_memory()
        candidate: Any = None
        while True:
            try:
                method, given = requests.recv()
            except EOFError:
                return
            try:
                if candidate is None:
                    module, _, name = made_by.partition(":")
                    candidate = getattr(importlib.import_module(module), name)(*arguments)
                requests.send(("done", getattr(candidate, method)(*given)))
            except Exception as error:  # whatever it is, the other candidates go on
                requests.send(("refused", _reason(error)))


def _limit_memory() -> None:
    """Let an allocation beyond what is free fail in this process, before the system kills another one."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        pass
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (free if hard == resource.RLIM_INFINITY else min(free, hard), hard))


def _reason(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"needs {error.name}, which is not installed"
    message = " ".join(str(error).split())
    if isinstance(error, MemoryError) or any(sign in message for sign in ("RESOURCE_EXHAUSTED", "alloc", "memory")):
        return f"too large for the memory ({message[:200]}); take a smaller --batch, --length or --preset"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {where.filename}:{where.lineno}: {message[:300]}"
