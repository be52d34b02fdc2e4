"""A lock lets one run at a time write into a folder.

The operating system ends it with the process that holds it. A crash leaves the lock's file behind, but nobody
holds it, so the next run takes it at once. The file names its holder, for the message that a second run gets.
A file system without locks is used without one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shlex
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import SoftPromptError
from .files import remove_unfinished, unwritable
from .secrets import without_secrets

FILE = ".lock"
INNER = ("checkpoint", "rows", "trials")  # folders in it that nobody else writes to either
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
GRACE = 0.2  # seconds in which a holder that is just ending may end
_mine = threading.local()  # .held: (process, device, inode) of the folders that this thread holds


@contextlib.contextmanager
def held(folders: Iterable[Path], *, wait: bool = False) -> Iterator[None]:
    """Make this run the only one that writes into these folders, which are created where they are missing.

    A thread may hold again what it holds already. Temporary files that killed runs left in the folders are
    removed. With `wait`, another holder is waited for. Raises SoftPromptError where another run holds one of
    the folders, or where one cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(_held(Path(folder), wait))
        yield


@contextlib.contextmanager
def _held(folder: Path, wait: bool) -> Iterator[None]:
    mine: set[tuple[int, int, int]] = _mine.__dict__.setdefault("held", set())
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = folder.stat()
    except OSError as error:
        raise unwritable(folder, error) from error
    # The inode is the same for all links and names; a forked child does not hold what its parent holds.
    key = os.getpid(), place.st_dev, place.st_ino
    if key in mine:
        yield
        return
    path = folder / FILE
    lock = FileLock(path, mode=0o644, thread_local=False, fallback_to_soft=False, on_acquired=_write_holder)
    try:
        lock.acquire(timeout=-1 if wait else GRACE)
    except Timeout:
        raise _busy(folder, path) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise unwritable(path, error) from error
    mark = path.stat()
    mine.add(key)
    try:
        for part in (folder, *(folder / name for name in INNER)):
            remove_unfinished(part)
        yield
    finally:
        mine.discard(key)
        with contextlib.suppress(OSError):  # Windows removes no open file
            if os.path.samestat(path.stat(), mark):
                path.unlink()  # still locked: a run that opened it before looks again whether it is there
        lock.release()
        if is_new:
            with contextlib.suppress(OSError):  # it is not empty, or no longer there
                folder.rmdir()


def _write_holder(descriptor: int) -> None:
    """Write who holds the lock, after the first byte, which nobody else can read on Windows."""
    command = without_secrets(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    holder = {"process": os.getpid(), "computer": platform.node(), "command": command, "since": since}
    with contextlib.suppress(OSError):  # a full disk does not end a run that would write nothing else
        os.ftruncate(descriptor, 0)
        os.write(descriptor, b"\n" + json.dumps(holder).encode("utf-8", "replace"))


def _busy(folder: Path, path: Path) -> SoftPromptError:
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(1)
            holder = json.loads(file.read(4096))
        who = "process {process} on {computer}, since {since}: {command}".format(**holder)
    except (OSError, ValueError, LookupError, TypeError):
        who = "its lock does not name it"
    return SoftPromptError(
        f"another run is writing into {folder}",
        why=who,
        fix="wait until it has ended, or choose another output=FOLDER",
    )
