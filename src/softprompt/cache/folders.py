"""Where caches lie on disk, and how many bytes may be there. What names them is in `naming`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from .._system.paths import cache_root, expanded
from ..config.schema import Recipe

BUDGET_SHARE = 0.4  # of the disk that is free or held by caches, where the user names no budget


def default_root() -> Path:
    """kv/ in $SOFTPROMPT_CACHE, or in softprompt/ of the user's cache folder."""
    return cache_root() / "kv"


@dataclass(frozen=True, slots=True)
class Held:
    """A file of rows that is on disk."""

    path: Path
    bytes: int
    used: float  # when a run last opened or wrote it, seconds since 1970


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """A folder of caches, and the bytes that all of them together may take."""

    root: Path = field(default_factory=default_root)
    limit: int | None = None  # None: a share of the disk

    def folder(self, key: str) -> Path:
        """Of the rows of one kind and base."""
        return self.root / key

    def budget(self) -> int:
        """Bytes that all caches may take. The disk is not touched."""
        if self.limit is not None:
            return self.limit
        there = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        return int(BUDGET_SHARE * (shutil.disk_usage(there).free + sum(h.bytes for h in self.held())))

    def held(self) -> list[Held]:
        """What is there, the longest unused first."""
        found = []
        for path in self.root.glob("*/*.safetensors"):
            with contextlib.suppress(FileNotFoundError):  # another run may be removing it
                entry = entry_of(path)
                size, used = path.stat().st_size, path.stat().st_mtime
                if entry.exists():
                    size, used = size + entry.stat().st_size, entry.stat().st_mtime
                found.append(Held(path, size, used))
        return sorted(found, key=lambda held: held.used)

    def make_room(self, folder: Path, needed: int, keep: Collection[Path] = ()) -> list[Path]:
        """Remove the longest unused files until `needed` bytes more fit; what was removed.

        The caller is the builder of `folder`. What stands in a folder that another run builds stays, as
        do the files in `keep`. A file that is being read goes, but its reader keeps what it has mapped.
        """
        held = self.held()
        over = sum(h.bytes for h in held) + needed - self.budget()
        removed = []
        for h in held:
            if over <= 0:
                break
            own = h.path.parent == folder
            with contextlib.nullcontext(True) if own else builder(h.path.parent, wait=False) as alone:
                if alone and h.path not in keep:
                    remove(h.path)
                    removed.append(h.path)
                    over -= h.bytes
        return removed


def entry_of(path: Path) -> Path:
    """The file that says what a file of rows holds; written after it."""
    return path.with_suffix(".json")


def remove(path: Path) -> None:
    """A file of rows and its entry, the entry first: a file without one is not read."""
    entry_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def builder(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Be the only run that writes in a folder or removes from it; yield False where another run is.

    With `wait`, wait for that run instead. The system releases the lock of a process that was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def cache_place(recipe: Recipe) -> CacheFolder:
    """Where the recipe's caches lie on disk, and what they may take there."""
    train = recipe.train
    root = default_root() if train.cache_folder is None else Path(expanded(train.cache_folder))
    return CacheFolder(root, None if train.cache_disk_mb is None else train.cache_disk_mb * 10**6)
