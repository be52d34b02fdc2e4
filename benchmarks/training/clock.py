"""The clock that blocks of training steps are timed with."""

from __future__ import annotations

import time
from collections.abc import Callable

_now: Callable[[], float] = time.perf_counter


def now() -> float:
    """Seconds, from any start."""
    return _now()


def use_processor_time() -> None:
    """Count seconds of this process's processor time: on a busy machine waiting says nothing of a method."""
    global _now
    _now = time.process_time
