"""Memory that the C allocator keeps after requests have left, given back to the system now and then.

Requests of many lengths leave free pages between blocks that are in use. glibc's allocator keeps such pages,
so the resident size of a server creeps although nothing is leaked. Other allocators (jemalloc, musl's, those
of macOS and Windows) give them back by themselves or cannot be asked: there this does nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from .._system.memory import give_back

EVERY = 20.0  # seconds


class Trimming:
    """Trims every `every` seconds, in a thread of its own, until it is stopped.

    `trim` says whether it can do anything; a call through ctypes releases Python's lock, so that neither
    answers nor the event loop wait for it.
    """

    def __init__(self, every: float = EVERY, trim: Callable[[], bool] = give_back) -> None:
        self.every, self.trim = every, trim
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="softprompt-trim", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Returns once no trim is under way. Does nothing where it was not started."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        while not self._ended.wait(self.every):
            if not self.trim():
                return
