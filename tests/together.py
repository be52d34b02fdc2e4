"""Runs a function in several processes that know each other as torchrun's do.

They are forked from the test's process, in which torch and transformers are loaded already.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

SECONDS = 300  # after which the processes are killed: a collective that hangs must not stop the tests


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("localhost", 0))
        return place.getsockname()[1]


def together(function: Callable[[int], int | None], folder: Path, count: int = 2) -> list[int]:
    """Call `function(rank)` in each process and return the exit codes.

    Output goes to the files RANK.out and RANK.err in `folder`. An exit code is what the function returns, 99
    after an exception, or minus the number of a signal.
    """
    port, children = free_port(), []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            _run(function, folder, {"RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port})
        children.append(child)
    return _wait(children)


def _run(function: Callable[[int], int | None], folder: Path, places: dict[str, int]) -> None:
    code = 99
    try:
        rank = places["RANK"]
        for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
            file = os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            stream.flush()
            os.dup2(file, {"out": 1, "err": 2}[name])
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        os.environ.update({key: str(value) for key, value in places.items()})
        os.environ.update(
            LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=os.environ["WORLD_SIZE"], MASTER_ADDR="localhost"
        )
        code = function(rank) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without the cleaning up of pytest


def _wait(children: list[int]) -> list[int]:
    codes: dict[int, int] = {}
    end = time.monotonic() + SECONDS
    while len(codes) < len(children):
        for child in children:
            if child not in codes and (done := os.waitpid(child, os.WNOHANG))[0]:
                codes[child] = os.waitstatus_to_exitcode(done[1])
        if time.monotonic() > end:
            for child in children:
                if child not in codes:
                    os.kill(child, signal.SIGKILL)
            end = float("inf")
        time.sleep(0.02)
    return [codes[child] for child in children]
