"""The entries of the tool's cache folder are listed, and cleared where no run uses them.

An entry is a folder that this library has named: one of keys and values (`kv/HASH`), or a converted model.
Other folders beside them are somebody else's: $SOFTPROMPT_CACHE may name a folder with other content. A link
is never followed, for the same reason.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .._system.paths import cache_root, shown
from ..errors import SoftPromptError, unknown
from ..lm.smollm2 import CONVERTED
from .folders import builder

KV = "kv"
HASH = re.compile(r"[0-9a-f]{32}")  # what `keys.key_of` returns
MODEL = re.compile(rf"{CONVERTED}\d+(\.\w+)?")  # with a suffix: one that is being written
CONVERTING = 600.0  # seconds within which a temporary folder is taken for one that is written
Content = Literal["inputs", "model"]
CONTENTS: dict[Content, str] = {
    "inputs": "keys and values of inputs, computed again where they are needed",
    "model": "a converted base model, converted again at its next use",
}


@dataclass(frozen=True, slots=True)
class CacheItem:
    """An entry is a folder of the cache; its name is its path below the root."""

    name: str
    path: Path
    content: Content
    bytes: int
    files: int
    used: float  # the newest time of a file, seconds since 1970
    in_use: str | None  # who uses it; None: nobody that this user can see


def entries(root: Path | None = None) -> list[CacheItem]:
    """List the cache's entries, the largest first. A missing folder has none."""
    root = cache_root() if root is None else root
    mapped, result = _mapped(root), []
    for path in _folders(root):
        with contextlib.suppress(FileNotFoundError):  # it was renamed or cleared meanwhile
            result.append(_entry(root, path, mapped))
    return sorted(result, key=lambda entry: -entry.bytes)


def chosen(names: list[str], listed: list[CacheItem]) -> list[CacheItem]:
    """Return the entries of these names; `kv` names all of its own, and no name means every entry.

    Raises SoftPromptError for a name that is not among them.
    """
    known = {entry.name: entry for entry in listed}
    result: dict[str, CacheItem] = {} if names else known
    for name in names:
        name = name.rstrip("/")
        if name == KV:
            result |= {entry.name: entry for entry in listed if entry.content == "inputs"}
        elif name in known:
            result[name] = known[name]
        else:
            raise unknown("cache entry", shown(name), [*known, KV], fix="softprompt cache list names them")
    return list(result.values())


def clear(entry: CacheItem) -> int:
    """Remove an entry and return the bytes of its files. Raises SoftPromptError where a run uses it.

    Nothing is removed then. Links inside are removed as links.
    """
    if entry.path.is_symlink():
        raise SoftPromptError(
            f"{entry.name} is a link", "what it leads to is not the cache's", f"rm '{entry.path}'"
        )
    with contextlib.ExitStack() as held:
        if entry.content == "inputs" and not held.enter_context(builder(entry.path, wait=False)):
            raise _busy(entry.name, "a run is computing it")
        if user := _users(entry.path, _mapped(entry.path)):
            raise _busy(entry.name, user)
        try:
            shutil.rmtree(entry.path)
        except OSError as error:
            raise SoftPromptError(
                f"the cache entry {entry.name} could not be removed", str(error), "check who owns the folder"
            ) from error
    return entry.bytes


def _busy(name: str, why: str) -> SoftPromptError:
    return SoftPromptError(f"the cache entry {name} is in use", why, "wait until that run has ended")


def _folders(root: Path) -> Iterator[Path]:
    for place in (root, root / KV):
        if place.is_symlink() and place != root:
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as items:
            for item in sorted(items, key=lambda item: item.name):
                is_ours = (MODEL if place == root else HASH).fullmatch(item.name)
                if is_ours and item.is_dir(follow_symlinks=False):
                    yield Path(item.path)


def usage(path: Path) -> tuple[int, int, float]:
    """Return the bytes, the number and the latest change (0 without any) of the files below a folder."""
    size, count, used = 0, 0, 0.0
    for folder, _, names in os.walk(path):  # does not follow links
        for name in names:
            with contextlib.suppress(OSError):  # it was removed meanwhile
                state = os.lstat(os.path.join(folder, name))
                if stat.S_ISREG(state.st_mode):
                    size, count, used = size + state.st_size, count + 1, max(used, state.st_mtime)
    return size, count, used


def _entry(root: Path, path: Path, mapped: dict[Path, str]) -> CacheItem:
    size, count, used = usage(path)
    content: Content = "inputs" if path.parent == root / KV else "model"
    name = path.relative_to(root).as_posix()
    return CacheItem(name, path, content, size, count, used or path.stat().st_mtime, _users(path, mapped))


def _users(path: Path, mapped: dict[Path, str]) -> str | None:
    """Return who uses something below the path."""
    real = path.resolve()
    user = next((who for file, who in mapped.items() if file.is_relative_to(real)), None)
    if user is None and "." in path.name and time.time() - path.stat().st_mtime < CONVERTING:
        return "a run is converting a model into it"
    return user


def _mapped(root: Path) -> dict[Path, str]:
    """Return the files below the root that a process of this user has mapped or open, with that process.

    A store opens all of its files at its start and keeps them mapped, so that a run is seen here as long as
    it needs them. Without /proc (macOS, Windows) only open files are seen; Windows removes no mapped file.
    """
    real, result = root.resolve(), {}
    for number, files in _files_of_processes(str(real)):
        for file in files:
            if (path := Path(file)).is_relative_to(real) and path.name != "lock":
                result[path] = f"process {number} has it open"
    return result


def _files_of_processes(root: str) -> Iterator[tuple[int, list[str]]]:
    proc = Path("/proc")
    if not (proc / "self/maps").exists():
        import psutil

        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                yield process.pid, [file.path for file in process.open_files()]
        return
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        files = []
        with contextlib.suppress(OSError):  # it has ended, or belongs to somebody else
            maps = (process / "maps").read_text(errors="surrogateescape")
            files += [line.split(maxsplit=5)[5] for line in maps.splitlines() if root in line]
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    files.append(os.readlink(descriptor))
        yield int(process.name), files
