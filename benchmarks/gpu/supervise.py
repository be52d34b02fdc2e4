"""One process runs the pieces in turn, and another one watches it: an error of the GPU ends a process.

The worker says in a file what it is running. A piece that ends its process, or that runs far too long, is
recorded with that error, and a new worker continues with the rest. This file knows nothing of the pieces.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

POLL = 0.2  # seconds
GRACE = 30.0  # seconds after the budget, for the piece that is running then
AGAIN = 3  # a worker's exit code: it has recorded an error after which only a new process can continue


def note(file: Path, piece: str) -> None:
    """Say which piece runs from now on; an empty name says that none does."""
    working = file.with_suffix(".part")
    working.write_text(json.dumps({"piece": piece, "since": time.time()}), encoding="utf-8")
    working.replace(file)


def noted(file: Path) -> tuple[str, float]:
    """Return the piece that runs, or an empty name, and since when."""
    if not file.exists():
        return "", time.time()
    values = json.loads(file.read_text(encoding="utf-8"))
    return values["piece"], values["since"]


def supervise(
    command: Callable[[float], Sequence[str]],
    file: Path,
    limits: Mapping[str, float],
    record: Callable[[str, str], None],
    seconds: float,
) -> None:
    """Run workers until one of them ends without being stopped, or the seconds are over.

    `command` is given the seconds that are left. `record` is called with each piece that ended its process,
    and the reason.
    """
    end = time.time() + seconds
    while time.time() < end:
        note(file, "")
        process = subprocess.Popen(command(end - time.time()))
        why = _watch(process, file, limits, end)
        piece, _ = noted(file)
        if process.returncode == AGAIN:
            continue
        if process.returncode == 0 or not piece or not why:
            return  # it has done what fits, could not begin, or the time is over
        record(piece, why)


def _watch(process: subprocess.Popen, file: Path, limits: Mapping[str, float], end: float) -> str:
    """Wait for the process; return why its piece has failed, empty where that is not the piece's fault."""
    try:
        while process.poll() is None:
            time.sleep(POLL)
            piece, since = noted(file)
            if piece and time.time() - since > limits[piece]:
                process.kill()
                process.wait()
                return f"it was ended: it ran for more than {limits[piece]:.0f} s"
            if time.time() > end + GRACE:
                process.kill()
                process.wait()
                return ""
    except BaseException:
        process.kill()
        process.wait()
        raise
    return f"its process ended with code {process.returncode}"
