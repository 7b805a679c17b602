"""Training runs in processes of their own, which find each other at an address and divide simulated devices."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flax_transformer.config import Mixer

ROOT = Path(__file__).parent.parent
Sizes = tuple[int, int, int]


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def run_worker(
    sizes: Sizes,
    steps: int,
    *,
    devices: int,
    processes: int = 1,
    mixer: Mixer = "attention",
    packing: bool = False,
    optimizer: str = "adamw",
    r_drop: float = 0.0,
) -> list[dict[str, Any]]:
    """What each process of a training run on simulated devices says."""
    coordinator, options = free_address(), [mixer, packing, optimizer, r_drop]
    program = [sys.executable, "-W", "ignore", str(ROOT / "tests" / "sharding_worker.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    started = [
        subprocess.Popen(
            [*program, json.dumps([sizes, steps, devices // processes, coordinator, processes, index, *options])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for index in range(processes)
    ]
    outputs = wait_for_outputs(started, timeout=600)
    assert all(process.returncode == 0 for process in started), outputs
    return [json.loads(output.splitlines()[-1]) for output, _ in outputs]


def wait_for_outputs(processes: list[subprocess.Popen[str]], timeout: float) -> list[tuple[str, str]]:
    """What each wrote, read at the same time: one whose pipe is full would wait, and the others for it."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda process: process.communicate(timeout=timeout), processes))
