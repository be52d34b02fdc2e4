"""Stamps show whether a file was changed since it was read.

They contain the time at which the file's record changed (ctime), which only the system sets, so a version
that is copied with the old modification time and size is noticed. The system counts these times in steps, so
a file that was changed just now may change once more with the same stamp.
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

STEP = 0.02  # seconds; systems count these times in steps of 1 to 10 ms
Stamp = tuple[int, int, int, int, int]


def stamp_of(path: str | Path) -> Stamp | None:
    """Return a value that changes whenever the file is changed or replaced; None where there is no file."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return stat.st_ctime_ns, stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev


def settled(look: Callable[[], tuple[Stamp | None, ...]]) -> tuple[Stamp | None, ...]:
    """Return the stamps that `look` reads, once the last change is so old that a further one would show."""
    stamps = look()
    newest = max((stamp[0] for stamp in stamps if stamp is not None), default=0)
    if abs(time.time() - newest / 1e9) >= STEP:
        return stamps
    time.sleep(STEP)
    return look()


def is_momentary(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, may disappear while the files stay the same.

    Failures of the system (too many open files, a disk that does not answer, no memory) may; errors about
    the files' content do not.
    """
    while error is not None:
        if isinstance(error, (OSError, MemoryError, RuntimeError)) and not isinstance(error, RecursionError):
            return True  # torch reports missing memory as a RuntimeError
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def remember(
    kept: OrderedDict[Any, Any], key: Any, value: Any, most: int, lock: threading.Lock | None = None
) -> None:
    """Put a value last, and drop the first ones where there are more than `most`; `lock` protects `kept`."""
    with lock or contextlib.nullcontext():
        kept[key] = value
        kept.move_to_end(key)
        while len(kept) > most:
            kept.popitem(last=False)
