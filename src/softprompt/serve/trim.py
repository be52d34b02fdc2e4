"""Memory that the C allocator keeps after requests is returned to the system regularly.

Requests of many lengths leave free pages between used blocks. glibc's allocator keeps such pages, so a
server's resident size grows although nothing leaks. Other allocators (jemalloc, musl's, those of macOS and
Windows) return pages automatically or have no such function; then this does nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from .._system.memory import give_back

EVERY = 20.0  # seconds


class Trimming(threading.Thread):
    """Calls `trim` every `every` seconds, until it is stopped or `trim` returns False.

    A call through ctypes releases Python's lock, so neither answers nor the event loop wait for it.
    """

    def __init__(self, every: float = EVERY, trim: Callable[[], bool] = give_back) -> None:
        super().__init__(name="softprompt-trim", daemon=True)
        self.every, self.trim = every, trim
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(self.every) and self.trim():
            pass

    def stop(self) -> None:
        """Stop, and wait for a trim that is running. Does nothing where it was not started."""
        self._ended.set()
        if self.is_alive():
            self.join()
