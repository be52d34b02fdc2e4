"""Files of rows on disk: each with an entry beside it that names its rows, both whole or not there.

A file is read only where its entry is there, which is written last, and where it is still what the
entry says. Rows are tensors named `POSITION.PART`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._system import files
from .base import Row
from .folders import entry_of, remove

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Shard:
    """A whole file of rows."""

    path: Path
    names: tuple[str, ...]
    bytes: int


def write(folder: Path, names: Sequence[str], rows: Sequence[Row]) -> Shard:
    """A file of rows, and then its entry; neither where one of them cannot be written."""
    path = folder / f"{hashlib.sha256(''.join(names).encode()).hexdigest()[:16]}.safetensors"
    tensors = {f"{i}.{k}": tensor for i, row in enumerate(rows) for k, tensor in enumerate(row)}
    with contextlib.ExitStack() as undo:
        undo.callback(remove, path)
        files.write_tensors(path, tensors)
        entry = {**_state(path), "crc32": _crc(path), "rows": list(names)}
        files.write_text(entry_of(path), json.dumps(entry))
        undo.pop_all()
    return Shard(path, tuple(names), path.stat().st_size)


def remove_unfinished(folder: Path) -> None:
    """What a build left that was killed while it wrote."""
    for left in folder.glob("*"):
        if left.name.startswith(".") or (left.suffix == ".safetensors" and not entry_of(left).exists()):
            left.unlink()


def holding(
    folder: Path, names: Sequence[str], say: Say = lambda text: None, *, check: bool = True
) -> list[Shard]:
    """The files that hold any of the rows. With `check`, those that are damaged are said and removed.

    Contents are read only where a file's size or time says that it was touched: a cache may be larger
    than memory, and a run is to start at once.
    """
    wanted, found = set(names), []
    for path in sorted(folder.glob("*.json")):
        shard = path.with_suffix(".safetensors")
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            held, size = tuple(entry["rows"]), int(entry["bytes"])
            whole = not check or wanted.isdisjoint(held) or _is_as_written(shard, entry)
        except FileNotFoundError:
            continue  # removed just now
        except (ValueError, KeyError, TypeError):
            held, size, whole = (), 0, False
        if not whole and check:
            say(f"a damaged cache is computed again: {shard}")
            remove(shard)
        elif not wanted.isdisjoint(held):
            found.append(Shard(shard, held, size))
    return found


def lacking(shards: Sequence[Shard], names: Sequence[str]) -> list[str]:
    """The rows that none of the files holds."""
    there = {name for shard in shards for name in shard.names}
    return [name for name in names if name not in there]


def missing(folder: Path, names: Sequence[str]) -> list[str]:
    """The rows that no file in the folder is said to hold (one may yet turn out to be damaged)."""
    return lacking(holding(folder, names, check=False), names)


def _is_as_written(path: Path, entry: dict[str, Any]) -> bool:
    try:
        found = _state(path)
        untouched = all(found[name] == entry[name] for name in found)
        return untouched or (found["bytes"] == entry["bytes"] and _crc(path) == entry["crc32"])
    except OSError:
        return False


def _state(path: Path) -> dict[str, int]:
    found = path.stat()
    return {"bytes": found.st_size, "modified": found.st_mtime_ns}


def _crc(path: Path) -> int:
    found = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found = zlib.crc32(block, found)
    return found
