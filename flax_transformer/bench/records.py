"""What a benchmark found, with all that is needed to judge it: a JSON file for each run."""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from flax_transformer.errors import UserError
from flax_transformer.outputs import write_whole

_PACKAGES = (
    "flax-transformer",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "torch",
    "transformers",
    "ctranslate2",
    "onnxruntime",
    "numpy",
)
# What changes the speed of a process without standing in its command.
_LAUNCH = ("LD_PRELOAD", "XLA_FLAGS", "GLIBC_TUNABLES", "OMP_NUM_THREADS", "JAX_PLATFORMS")


@dataclass(frozen=True)
class Record:
    """
    Args:
        what: the benchmark, such as train.
        label: what tells it from others of the same kind, such as tiny-dropout0.1.
        settings: the full config of what was timed.
        results: the benchmark's own figures.
        machine: hardware, versions, commit and launch; of this process if not given.
    """

    what: str
    label: str
    settings: dict[str, Any]
    results: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=lambda: describe_machine())
    command: str = field(default_factory=lambda: shlex.join(["flax-transformer", *sys.argv[1:]]))
    date: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d %H:%M"))

    @property
    def launch(self) -> str:
        """How the processes were started, beyond their command: tcmalloc, oneDNN, both, or "as installed"."""
        environment = self.machine["launch"]
        signs = {"tcmalloc": "LD_PRELOAD", "oneDNN": "XLA_FLAGS"}
        return " + ".join(n for n, v in signs.items() if n.lower() in environment.get(v, "")) or "as installed"

    def save(self, where: Path) -> Path:
        """Write to ``where``; a folder gets a file named by date, device, benchmark and launch."""
        if where.is_dir():
            parts = [self.date[:10], self.machine["device"], self.what, self.label]
            if self.launch != "as installed":
                parts.append(self.launch)
            where = where / f"{'-'.join(map(_slug, parts))}.json"
        write_whole(where, json.dumps(asdict(self), indent=1) + "\n")
        return where


def load_record(file: Path) -> Record:
    """
    Raises:
        UserError: the file is not a record.
    """
    try:
        return Record(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file}: expected what a benchmark wrote with --json, got something else ({error})") from error


def describe_machine(device: str | None = None) -> dict[str, Any]:
    """Hardware, versions, commit and launch of this process.

    Args:
        device: what is timed, such as an accelerator; the processor if not given.
    """
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "device": device or processor(),
        "processor": processor(),
        "threads": thread_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "commit": _commit(),
        "launch": {name: os.environ[name] for name in _LAUNCH if name in os.environ},
    }


def thread_count() -> int:
    """Cores that this process may use, and so the threads of every candidate."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Its name and vector instructions, since one name may stand for several generations, and its cores."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    name = found[1] if found else platform.processor() or platform.machine()
    vectors = next((f" ({shown})" for flag, shown in _VECTORS.items() if re.search(rf"\b{flag}\b", text)), "")
    return f"{name}{vectors}, {thread_count()} cores"


# A flag of /proc/cpuinfo -> what it is called, the widest first.
_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}

# Records and pictures made by earlier benchmarks do not make it another program.
_OUTPUTS = (":!results", ":!../docs")


def _commit() -> str | None:
    """The checked-out commit, with + behind it where files differ; None outside a checkout."""

    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        result = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)
        return result.stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + (
            "+" if git("status", "--porcelain", "--", "..", *_OUTPUTS) else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")
