"""The folders of caches on disk, and the bytes that they may take. Their names are made in `keys`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from .._system.paths import cache_root, expanded
from ..config.schema import Recipe

BUDGET_SHARE = 0.4  # of the disk that is free or used by caches, where the user names no budget


def default_root() -> Path:
    """Return kv/ in $SOFTPROMPT_CACHE, or in softprompt/ of the user's cache folder."""
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
        """Return the folder of one constant of one base model."""
        return self.root / key

    def budget(self) -> int:
        """Return the bytes that all caches may take. Nothing is written."""
        if self.limit is not None:
            return self.limit
        there = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        return int(BUDGET_SHARE * (shutil.disk_usage(there).free + sum(h.bytes for h in self.held())))

    def held(self) -> list[Held]:
        """List the files of rows, the longest unused first."""
        files = []
        for path in self.root.glob("*/*.safetensors"):
            with contextlib.suppress(FileNotFoundError):  # another run may be removing it
                entry = entry_of(path)
                size, used = path.stat().st_size, path.stat().st_mtime
                if entry.exists():
                    size, used = size + entry.stat().st_size, entry.stat().st_mtime
                files.append(Held(path, size, used))
        return sorted(files, key=lambda held: held.used)

    def make_room(self, folder: Path, needed: int, keep: Collection[Path] = ()) -> list[Path]:
        """Remove the longest unused files until `needed` more bytes fit; return the removed ones.

        The caller must be the builder of `folder`. Files in `keep`, and files in folders that another run
        builds, are not removed. A reader of a removed file keeps the mapped content.
        """
        held = self.held()
        over = sum(h.bytes for h in held) + needed - self.budget()
        removed = []
        for h in held:
            if over <= 0:
                break
            lock = builder(h.path.parent, wait=False)
            with contextlib.nullcontext(True) if h.path.parent == folder else lock as alone:
                if alone and h.path not in keep:
                    remove(h.path)
                    removed.append(h.path)
                    over -= h.bytes
        return removed


def entry_of(path: Path) -> Path:
    """Return the path of the entry, which lists the rows of a file and is written after it."""
    return path.with_suffix(".json")


def remove(path: Path) -> None:
    """Remove a file of rows and its entry, the entry first: a file without one is not read."""
    entry_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def builder(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Be the only run that writes in a folder or removes from it; yield False where another run is.

    With `wait`, wait for that run instead. The system releases the lock of a process that was killed.
    """
    lock = FileLock(folder / "lock")
    try:
        _acquire(lock, folder, wait)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _acquire(lock: FileLock, folder: Path, wait: bool) -> None:
    """Make the folder and take its lock. Raises Timeout where another run has it, and without `wait`."""
    for is_last in (False, False, True):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=wait)
            return
        except FileNotFoundError:  # `softprompt cache clear` has removed the folder since
            if is_last:
                raise


def cache_place(recipe: Recipe) -> CacheFolder:
    """Return the recipe's cache folder, with its limit."""
    train = recipe.train
    root = default_root() if train.cache_folder is None else Path(expanded(train.cache_folder))
    return CacheFolder(root, None if train.cache_disk_mb is None else train.cache_disk_mb * 10**6)
