"""All processes of a run end when one of them fails, and one message is shown.

The first process that fails says so on a board, the key-value store of the processes, and reports its error.
The others fail soon after, because a connection was closed; they see the board and stay silent. A process
that waits for a GPU of another cannot fail: a thread ends it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

SECONDS = 0.5  # between two looks at the board
GRACE = 5.0  # seconds that a process has to end after one has failed


class Board:
    """Counts the processes that have failed."""

    def __init__(self) -> None:
        from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

        environment = os.environ
        address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        # a client of its own: the group's client may be waiting for a key
        self._store = TCPStore(address, port, None, False, timedelta(seconds=30), False)
        names = (environment.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"))
        self._key = "/".join(("softprompt", *names, "failed"))

    def fail(self) -> bool:
        """Record that this process fails. Return True where it is the first one."""
        try:
            return self._store.add(self._key, 1) == 1
        except RuntimeError:  # the store ended with the process that held it, which has failed
            return False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """End this process if another one fails inside, or if it does not end soon after it failed itself."""
        is_over = threading.Event()
        threading.Thread(target=self._watch, args=(is_over,), daemon=True).start()
        yield
        is_over.set()  # not after an exception: then the thread sees to it that the process ends

    def _watch(self, is_over: threading.Event) -> None:
        while not is_over.wait(SECONDS):
            try:
                failed = self._store.add(self._key, 0) > 0
            except RuntimeError:
                failed = True
            if failed:
                time.sleep(GRACE)
                if not is_over.is_set():
                    os._exit(1)
