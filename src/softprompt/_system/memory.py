"""This module measures the memory of this process, and returns what is free to the system."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # not getrusage: on Linux a child process starts with the peak of the parent that made it
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def reset_peak() -> bool:
    """Count `peak_memory` from now on; return False where the system cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def free_memory(device: str = "cpu") -> int:
    """Return the free bytes of a GPU or of the machine; in a container, within its limit.

    The processes that torchrun started on this machine share its memory in equal parts.
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    from .cgroup import memory_left

    free, left = psutil.virtual_memory().available, memory_left()
    free = free if left is None else min(free, left)
    return free // int(os.environ.get("LOCAL_WORLD_SIZE") or 1)


def give_back() -> bool:
    """Return the pages that C's allocator holds free to the system; False where it is not glibc's allocator.

    Python's lock is released meanwhile.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return False
    trim.argtypes = [ctypes.c_size_t]
    trim(0)
    return True
