"""Files of rows on disk are written here, each with an entry beside it that names its rows.

The entry is written last. A file is read only if it has an entry and still is as the entry describes it. Rows
are tensors named `POSITION.PART`.
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
    """A file of rows that has an entry."""

    path: Path
    names: tuple[str, ...]
    bytes: int


def write(folder: Path, names: Sequence[str], rows: Sequence[Row]) -> Shard:
    """Write a file of rows, and then its entry; where one of them fails, neither is left."""
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
    """Remove the files that a killed build left half written."""
    for left in folder.glob("*"):
        if left.name.startswith(".") or (left.suffix == ".safetensors" and not entry_of(left).exists()):
            left.unlink()


def holding(folder: Path, names: Sequence[str]) -> list[Shard]:
    """List the files that hold any of the rows, according to their entries."""
    wanted, shards = set(names), []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            entry = json.loads(path.read_text(encoding="utf-8"))
            rows, size = tuple(entry["rows"]), int(entry["bytes"])
            if not wanted.isdisjoint(rows):
                shards.append(Shard(path.with_suffix(".safetensors"), rows, size))
    return shards


def remove_damaged(folder: Path, names: Sequence[str], say: Say) -> None:
    """Remove damaged entries, and damaged files that hold any of the rows.

    Contents are read only where a file's size or time differs from its entry: a cache may be larger than
    memory, and a run must start at once.
    """
    wanted = set(names)
    for path in sorted(folder.glob("*.json")):
        shard = path.with_suffix(".safetensors")
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            int(entry["bytes"])
            whole = wanted.isdisjoint(tuple(entry["rows"])) or _is_as_written(shard, entry)
        except FileNotFoundError:
            continue  # another run has just removed it
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            say(f"a damaged cache is computed again: {shard}")
            remove(shard)


def lacking(shards: Sequence[Shard], names: Sequence[str]) -> list[str]:
    """Return the rows that none of the files holds."""
    present = {name for shard in shards for name in shard.names}
    return [name for name in names if name not in present]


def missing(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the rows that no entry in the folder names. Files are not checked for damage."""
    return lacking(holding(folder, names), names)


def _is_as_written(path: Path, entry: dict[str, Any]) -> bool:
    try:
        state = _state(path)
        untouched = all(state[name] == entry[name] for name in state)
        return untouched or (state["bytes"] == entry["bytes"] and _crc(path) == entry["crc32"])
    except OSError:
        return False


def _state(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"bytes": status.st_size, "modified": status.st_mtime_ns}


def _crc(path: Path) -> int:
    total = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            total = zlib.crc32(block, total)
    return total
