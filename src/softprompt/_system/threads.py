"""The number of threads that matrix products run on.

torch counts what the machine shows: hyperthreads, which share one core's arithmetic, and inside a
container all of the host's. Right is one for each physical core that the process may run on, and no more
than its container gives time for.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Collection
from pathlib import Path

from ..errors import SoftPromptError
from .cgroup import ROOT, cpu_quota

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # by which a user says it for every program


_forked = False  # from a process in which torch was loaded


def _alone() -> None:
    """A forked process has none of its parent's threads, for which torch would wait: it takes one."""
    global _forked
    if torch := sys.modules.get("torch"):
        _forked = True
        torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_alone)


def use(wanted: int | None = None) -> int:
    """Set torch's number of threads and say it: `wanted`, else the environment's, else the right one.

    A number that is smaller already (by `torch.set_num_threads`) stays as it is.
    """
    import torch

    if _forked:
        if wanted is not None and wanted > 1:
            raise SoftPromptError(
                f"train.threads={wanted} does not go with a process that was forked",
                why="torch's threads stayed with the parent, and waiting for them would never end",
                fix='start processes by "spawn": multiprocessing.get_context("spawn")',
            )
        torch.set_num_threads(1)
    elif wanted is not None:
        torch.set_num_threads(wanted)
    elif not any(os.environ.get(name) for name in VARIABLES) and torch.get_num_threads() > right_number():
        torch.set_num_threads(right_number())
    return torch.get_num_threads()


def wait_quietly() -> None:
    """Let threads that wait for each other sleep instead of spin; to be called before torch is loaded.

    Beside other programs a spinning thread takes the core from the one that it waits for: on two busy cores,
    a pass that took seconds took minutes.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def said() -> int | None:
    """The number that the environment asks for; None where it asks for none, or for no number."""
    asked = next((value for name in VARIABLES if (value := os.environ.get(name))), "")
    return int(asked) if asked.isdigit() and int(asked) else None


def right_number(root: Path = ROOT) -> int:
    """Physical cores that this process may run on, bounded by its container's share of time."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores, quota = physical_cores(allowed, root), cpu_quota(root)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def physical_cores(processors: Collection[int], root: Path = ROOT) -> int:
    """Distinct cores of these logical processors; one that does not say its core is its own."""
    return len({_core(number, root) for number in processors})


def _core(processor: int, root: Path) -> tuple[str, ...]:
    folder = root / f"sys/devices/system/cpu/cpu{processor}/topology"
    try:
        return tuple((folder / name).read_text().strip() for name in ("physical_package_id", "core_id"))
    except OSError:
        return (str(processor),)
