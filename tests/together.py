"""Runs a function in several processes that know each other as torchrun's do.

They are forked from the test's process, in which torch and transformers are loaded already: a fresh process
would need seconds for that. The tests run torch on one thread (`conftest.py`), so that a child waits for no
thread of its parent.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import psutil

SECONDS = 1200  # after which the processes are killed: a collective that hangs must not stop the tests
QUIET = 20.0  # seconds after which processes count as hanging that have mostly slept
PAUSE = 0.02  # seconds between two looks at the processes


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("localhost", 0))
        return place.getsockname()[1]


def together(
    function: Callable[[int], int | None],
    folder: Path,
    count: int = 2,
    port: int | None = None,
    quiet: float = QUIET,
) -> list[int]:
    """Call `function(rank)` in each process and return the exit codes.

    Output goes to the files RANK.out and RANK.err in `folder`. An exit code is what the function returns, 99
    after an exception, or minus the number of a signal. Processes that wait for each other for about
    `quiet` seconds are killed; RANK.err then ends with what each of their threads was doing.
    """
    port, children = port or free_port(), []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            _run(function, folder, {"RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port})
        children.append(child)
    codes: dict[int, int] = {}
    try:
        _wait(children, codes, quiet)
    finally:  # where the test is interrupted
        _kill([child for child in children if child not in codes])
    return [codes[child] for child in children]


def _run(function: Callable[[int], int | None], folder: Path, places: dict[str, int]) -> None:
    code = 99
    try:
        rank = places["RANK"]
        for stream, name in ((sys.stdout, "out"), (sys.stderr, "err")):
            file = os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            stream.flush()
            os.dup2(file, {"out": 1, "err": 2}[name])
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        faulthandler.register(signal.SIGUSR1, file=sys.stderr)
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


def _wait(children: list[int], codes: dict[int, int], quiet: float) -> None:
    """Write each child's exit code into `codes`, and kill the children where they hang.

    Beside other programs a child that works has little of the processor's time, but it wants it: it is not
    asleep. Children that wait for each other look for news now and then.
    """
    start = since = time.monotonic()
    looks = asleep = 0
    while len(codes) < len(children):
        time.sleep(PAUSE)
        for child in children:
            if child not in codes and (done := os.waitpid(child, os.WNOHANG))[0]:
                codes[child] = os.waitstatus_to_exitcode(done[1])
        living = [child for child in children if child not in codes]
        looks += 1
        asleep += all(psutil.Process(child).status() == psutil.STATUS_SLEEPING for child in living)
        now = time.monotonic()
        if now > since + quiet or now > start + SECONDS:
            if asleep > looks / 2 or now > start + SECONDS:
                _kill(living)
                start = float("inf")
            since, looks, asleep = now, 0, 0


def _kill(children: list[int]) -> None:
    """Let the processes write what their threads are doing, and end them."""
    for child in children:
        os.kill(child, signal.SIGUSR1)
    if children:
        time.sleep(1)
    for child in children:
        os.kill(child, signal.SIGKILL)
