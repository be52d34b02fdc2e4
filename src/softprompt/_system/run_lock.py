"""One run at a time in a folder: a lock of the system's, which ends with the process that holds it.

A crash leaves the lock's file behind, but nobody holds it, so the next run takes it at once. The file says
who holds it, for the message that the second run gets. Where the file system knows no locks there is none.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..errors import SoftPromptError
from .files import remove_unfinished, unwritable

FILE = ".lock"
INNER = ("checkpoint", "rows", "trials")  # folders in it that nobody else writes to either
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
_mine = threading.local()  # .held: (device, inode) of the folders that this thread holds
_open: set[int] = set()  # descriptors of locks


@contextlib.contextmanager
def held(folders: Iterable[Path], *, wait: bool = False) -> Iterator[None]:
    """Be the only one that writes into these folders, which are made where they are not there.

    What a thread holds it may hold again. Temporary files that killed runs left in them are removed. With
    `wait`, another holder is waited for. Raises SoftPromptError where another run holds one of them, or where
    a folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(_held(Path(folder), wait))
        yield


@contextlib.contextmanager
def _held(folder: Path, wait: bool) -> Iterator[None]:
    own: set[tuple[int, int]] = _mine.__dict__.setdefault("held", set())
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise unwritable(folder, error) from error
    key = found.st_dev, found.st_ino  # whatever links and names lead to it
    if key in own:
        yield
        return
    descriptor = _lock(folder / FILE, folder, wait)
    own.add(key)
    try:
        for place in (folder, *(folder / name for name in INNER)):
            remove_unfinished(place)
        yield
    finally:
        own.discard(key)
        _release(folder / FILE, descriptor)
        if made:
            with contextlib.suppress(OSError):  # it is not empty, or gone
                folder.rmdir()


def _lock(path: Path, folder: Path, wait: bool) -> int:
    """The descriptor of a locked file that stands at `path`."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            raise _busy(folder, holder) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise unwritable(path, error) from error
        with contextlib.suppress(OSError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)  # whoever held it has removed the file in the meantime
    _open.add(descriptor)
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    about = {"process": os.getpid(), "computer": os.uname().nodename, "command": command, "since": since}
    with contextlib.suppress(OSError):  # a full disk does not end a run that would write nothing else
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(about).encode("utf-8", "replace"), 0)
    return descriptor


def _release(path: Path, descriptor: int) -> None:
    _open.discard(descriptor)
    with contextlib.suppress(OSError):
        # still locked: whoever opened the file before now looks whether it is still there
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
            path.unlink()
    with contextlib.suppress(OSError):
        os.close(descriptor)


def _let_go() -> None:
    """In a forked child: the lock is its parent's, and must end with it."""
    for descriptor in _open:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _open.clear()
    _mine.__dict__.pop("held", None)


os.register_at_fork(after_in_child=_let_go)


def _busy(folder: Path, holder: bytes) -> SoftPromptError:
    try:
        about = json.loads(holder)
        who = f"process {about['process']} on {about['computer']}, since {about['since']}: {about['command']}"
    except (ValueError, LookupError, TypeError):
        who = "it has not said which"
    return SoftPromptError(
        f"another run is writing into {folder}",
        why=who,
        fix="wait until it has ended, or choose another output=FOLDER",
    )
