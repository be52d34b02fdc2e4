"""Blocks of training steps are timed with this clock."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

_now: Callable[[], float] = time.perf_counter


def now() -> float:
    """Return seconds from an arbitrary start, once a GPU has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return _now()


def use_processor_time() -> None:
    """Count this process's processor time: on a busy machine, waiting tells nothing about a method."""
    global _now
    _now = time.process_time
