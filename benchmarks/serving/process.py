"""Run `softprompt serve` in its own process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from .bench import Bench

COMMAND = (sys.executable, "-c", "import sys; from softprompt.cli import main; sys.exit(main())", "serve")


@dataclass(frozen=True, slots=True)
class Served:
    """Holds a running server's address."""

    url: str
    pid: int
    seconds: float  # from the command until it accepts requests


@contextlib.contextmanager
def served(bench: Bench, folder: Path) -> Iterator[Served]:
    """Serve the prompts under `folder` with this process's number of threads and precision.

    Raises RuntimeError with the end of its stderr if it does not start or ends early.
    """
    options = ["--model", bench.lm.name, "--dtype", str(bench.lm.dtype).removeprefix("torch.")]
    options += ["--port", "0", "--rows", str(bench.clients), "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            [*COMMAND, str(folder), *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
        assert process.stdout is not None
        try:
            if first := process.stdout.readline():
                seconds = time.perf_counter() - started
                yield Served(json.loads(first)["url"], process.pid, seconds)
            if not first or process.poll() is not None:
                process.wait()
                errors.seek(0)
                raise RuntimeError(f"the server has ended: {errors.read()[-2000:]}")
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
