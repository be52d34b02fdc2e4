"""One thread does the work of an engine, from `start` to `stop`; other threads hand it work under a lock."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod

from ..errors import SoftPromptError
from .request import Stopped


class EngineThread(ABC):
    """EngineThread starts the thread of an engine, and ends it.

    The lock of `_changed` guards what waits, `_closing` (no more requests are taken) and `_stopped` (the
    thread ends).
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._closing = self._stopped = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._closing = self._stopped = False
        self._thread = threading.Thread(target=self._loop, name="softprompt-engine", daemon=True)
        self._thread.start()

    def stop(self, *, drain: float = 0) -> None:
        """Accept no more requests; those that do not finish within `drain` seconds end with an error."""
        with self._changed:
            self._closing = True
        until = time.monotonic() + drain
        while time.monotonic() < until and self._has_work:
            time.sleep(0.01)
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self._end_all(Stopped("the server has stopped", fix="ask again later"))

    async def problem(self) -> SoftPromptError | None:
        """Return what keeps the engine from answering, if anything does."""
        if self._thread is None or self._thread.is_alive() or self._closing:
            return None
        return SoftPromptError(
            "the engine's thread has ended", fix="start the server again; its log says why"
        )

    def _check_open(self) -> None:
        """Raise Stopped where no more requests are taken; the caller holds the lock."""
        if self._closing:
            raise Stopped("the server is stopping", fix="ask another server, or again later")

    @property
    @abstractmethod
    def _has_work(self) -> bool:
        """Say whether a request waits or is being answered."""

    @abstractmethod
    def _loop(self) -> None:
        """Do the work until `_stopped`, in the engine's thread."""

    @abstractmethod
    def _end_all(self, error: Stopped) -> None:
        """End the requests that are left with an error; the thread has ended."""
