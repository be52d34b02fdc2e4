"""This module chooses the number of threads that matrix products run on.

torch counts what the machine shows: hyperthreads, which share one core's arithmetic, and inside a container
all of the host's processors. This module counts each physical core that the process may run on once, and no
more than its control groups give time for. `joblib.cpu_count(only_physical_cores=True)` is close, but it
counts both threads of a core where affinity or a quota limits the process, and it reads no nested groups.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection
from pathlib import Path

from ..errors import SoftPromptError
from .cgroup import ROOT, cpu_quota

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # by which users set it for every program
_forked = False  # from a process in which torch was loaded


def _use_one_thread() -> None:
    """Run on one thread: torch would wait for its parent's threads, which a forked process does not have."""
    global _forked
    if torch := sys.modules.get("torch"):
        _forked = True
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_use_one_thread)


def use(wanted: int | None = None) -> int:
    """Set and return torch's number of threads: `wanted`, else the environment's, else `right_number`.

    A number that is already smaller (by `torch.set_num_threads`) stays as it is.
    Raises SoftPromptError where `wanted` is more than one in a forked process.
    """
    import torch

    if _forked:
        if wanted is not None and wanted > 1:
            raise SoftPromptError(
                f"train.threads={wanted} is not possible in a process that was forked",
                why="torch's threads stayed with the parent, and waiting for them would never end",
                fix='start processes with "spawn": multiprocessing.get_context("spawn")',
            )
        torch.set_num_threads(1)
    elif wanted is not None:
        torch.set_num_threads(wanted)
    elif not any(os.environ.get(name) for name in VARIABLES) and torch.get_num_threads() > right_number():
        torch.set_num_threads(right_number())
    return torch.get_num_threads()


def wait_quietly() -> None:
    """Let threads that wait for each other sleep instead of spin. Call it before torch is loaded.

    Beside other programs, a spinning thread takes the core from the one that it waits for: on two busy cores,
    a pass that took seconds took minutes.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def from_environment() -> int | None:
    """Return the number that the environment sets; None where it sets none, or no number."""
    value = next((value for name in VARIABLES if (value := os.environ.get(name))), "")
    return int(value) if value.isdigit() and int(value) else None


def right_number(root: Path = ROOT) -> int:
    """Return how many physical cores this process may use, within its control groups' share of time."""
    if hasattr(os, "sched_getaffinity"):
        cores = physical_cores(os.sched_getaffinity(0), root)
    else:
        import psutil

        cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    quota = cpu_quota(root)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def physical_cores(processors: Collection[int], root: Path = ROOT) -> int:
    """Count the distinct cores of these logical processors; one without a known core counts as a core."""
    return len({_core(number, root) for number in processors})


def _core(processor: int, root: Path) -> tuple[str, ...]:
    folder = root / f"sys/devices/system/cpu/cpu{processor}/topology"
    try:
        return tuple((folder / name).read_text().strip() for name in ("physical_package_id", "core_id"))
    except OSError:
        return (str(processor),)
