"""Whether a file was changed since it was read, by more than a time stamp that anybody can set.

The time of the last change of the file's record (ctime) is set by the system alone, so a version that is
copied with the time stamp and the size of the one before differs in it. The system counts these times in
steps, so a file that was changed just now may change once more without a sign of it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEP = 0.02  # seconds: systems count the times of changes in steps of 1 to 10 ms
Stamp = tuple[int, int, int, int, int]


def stamp_of(path: str | Path) -> Stamp | None:
    """Changes whenever the file does, or another takes its place; None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def settled(look: Callable[[], tuple[Stamp | None, ...]]) -> tuple[Stamp | None, ...]:
    """What `look` gives, once so much time has passed since the last change that a further one shows."""
    stamps = look()
    newest = max((stamp[0] for stamp in stamps if stamp is not None), default=0)
    if abs(time.time() - newest / 1e9) >= STEP:
        return stamps
    time.sleep(STEP)
    return look()


def is_momentary(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, may pass while the files stay as they are.

    So do failures of the system (too many open files, a disk that does not answer) and want of memory. What
    the files' content proves does not.
    """
    while error is not None:
        if isinstance(error, (OSError, MemoryError, RuntimeError)) and not isinstance(error, RecursionError):
            return True  # torch says that memory is short by a RuntimeError
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def remember(
    kept: OrderedDict[Any, Any], key: Any, value: Any, most: int, lock: threading.Lock | None = None
) -> None:
    """Put it last; what was put first goes where there are more than `most`. `lock`: of others that do so."""
    with lock or contextlib.nullcontext():
        kept[key] = value
        kept.move_to_end(key)
        while len(kept) > most:
            kept.popitem(last=False)
