"""The number of threads that matrix products run on.

torch counts what the machine shows: hyperthreads, which share one core's arithmetic, and inside a
container all of the host's. Right is one for each physical core that the process may run on, and no more
than its container gives time for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from pathlib import Path

from .cgroup import ROOT, cpu_quota

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # by which a user says it for every program


def use(wanted: int | None = None) -> int:
    """Set torch's number of threads and say it: `wanted`, else the environment's, else the right one.

    A number that is smaller already (by `torch.set_num_threads`) stays as it is.
    """
    import torch

    if wanted is not None:
        torch.set_num_threads(wanted)
    elif not any(os.environ.get(name) for name in VARIABLES) and torch.get_num_threads() > right_number():
        torch.set_num_threads(right_number())
    return torch.get_num_threads()


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
