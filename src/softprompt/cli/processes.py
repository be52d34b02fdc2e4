"""Several processes run one command: `devices=N` starts them, and the first one speaks for all."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from .._system.launch import count, joined, place
from .._system.world import ALONE, LostProcess, World
from ..errors import SoftPromptError
from .output import Reply

if TYPE_CHECKING:
    from ..config.schema import Recipe

LAUNCHED = "SOFTPROMPT_LAUNCHED"  # set in processes that `launch` started


@contextlib.contextmanager
def one_run() -> Iterator[World]:
    """Join the processes that torchrun started with this one; of their errors only the first is shown."""
    if place()[1] == 1:
        yield ALONE
        return
    from .._system.end_together import Board

    with joined() as world:
        board = Board()
        try:
            with board.watched():
                yield world
        except KeyboardInterrupt:
            if world.rank == 0:  # it reports the interruption, and the others stay silent
                board.fail()
                raise
            raise typer.Exit(130) from None
        except Exception as error:
            is_first = board.fail()
            was_killed = isinstance(error, LostProcess) and "imed out" not in error.why
            if not is_first or (was_killed and LAUNCHED in os.environ):
                raise typer.Exit(1) from error  # the first one has reported it, or `launch` will
            raise


def started_for(
    recipe: Recipe, world: World, command: Sequence[str], flags: Mapping[str, bool]
) -> Reply | None:
    """Run the command in as many processes as the recipe asks for; None where this process is to run it.

    `flags` are options of the command, and whether they are set.
    """
    from .._system.launch import check_started

    if world.size > 1:
        check_started(recipe.train.devices)
        return None
    number = count(recipe.train.devices)
    if number == 1:
        return None
    return Reply(None, code=launch(number, [*command, *(flag for flag, is_set in flags.items() if is_set)]))


def of_first(world: World, reply: Reply) -> Reply:
    """Return the reply in the first process, and an empty one in the others."""
    return reply if world.rank == 0 else Reply(None)


def launch(number: int, command: Sequence[str]) -> int:
    """Run a command of ours in `number` processes on this machine, and return its exit code."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from .._system.threads import VARIABLES, right_number

    if not any(os.environ.get(name) for name in VARIABLES):
        os.environ["OMP_NUM_THREADS"] = str(max(1, right_number() // number))
    os.environ[LAUNCHED] = "1"
    config = LaunchConfig(
        1,
        1,
        number,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=0.1,
    )
    logging.disable(logging.CRITICAL)  # the launcher's reports of what the processes report themselves
    try:
        elastic_launch(config, sys.executable)("-m", "softprompt", *command)
    except ChildFailedError as error:
        return _code(error)
    except SignalException:
        return 130
    finally:
        logging.disable(logging.NOTSET)
        del os.environ[LAUNCHED]
    return 0


def _code(error: object) -> int:
    """Return the exit code of the processes. Raises SoftPromptError where one was killed without a word."""
    failures = dict(getattr(error, "failures", {}))
    for rank, failure in sorted(failures.items()):
        if failure.exitcode < 0 and -failure.exitcode != signal.SIGTERM:
            raise SoftPromptError(
                f"process {rank} was killed ({signal.Signals(-failure.exitcode).name})",
                why="by someone, or by the system where memory ran out",
                fix="run the same command again: it resumes from the last checkpoint",
            ) from None
    return next((f.exitcode for f in failures.values() if f.exitcode > 0), 1)
