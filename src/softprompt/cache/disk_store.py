"""Rows are kept in files that are mapped into memory and shared by all runs over these inputs.

The system reads the rows of a batch from disk, and keeps them in memory as long as there is room. A build
that was killed resumes with the files that it had written (see `shards`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

from safetensors import safe_open

from ..data.batching import by_tokens
from ..data.example import Example
from .base import Constant, Row, distinct
from .folders import CacheFolder, builder, entry_of, remove
from .memory_store import BATCH_TOKENS
from .shards import Say, Shard, holding, lacking, remove_damaged, remove_unfinished, write

SHARD_BYTES = 200_000_000
SHARD_SECONDS = 30.0  # of computing; a run that is killed loses no more
NAMING_BYTES = 200  # of a file's header and its entry, for each row

Progress = Callable[[int, int], None]


@final
class DiskStore:
    """Reads rows from mapped files."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        # opened all at once, not when they are needed: a mapping outlives the removal of its file
        opened = [safe_open(shard.path, "pt") for shard in shards]
        self._parts = [len(file.keys()) // len(s.names) for file, s in zip(opened, shards, strict=True)]
        self._files = opened
        self._where = {name: (k, i) for k, shard in enumerate(shards) for i, name in enumerate(shard.names)}
        self.bytes = sum(shard.bytes for shard in shards)
        self.folder = Path(shards[0].path).parent if shards else None
        for shard in shards:
            os.utime(entry_of(shard.path))  # the longest unused are the first to be removed

    def row(self, name: str) -> Row:
        """Return views of the mapped file, without copies."""
        file, position = self._where[name]
        return [self._files[file].get_tensor(f"{position}.{part}") for part in range(self._parts[file])]


def open_or_build(
    place: CacheFolder,
    kept: Constant,
    examples: Sequence[Example],
    *,
    progress: Progress | None = None,
    say: Say = lambda text: None,
) -> DiskStore:
    """Open the store of the examples' inputs; rows that are missing or damaged are computed.

    `progress(done, total)` counts distinct inputs. Raises OSError, or a SoftPromptError caused by one, where
    they cannot be written (on a full disk, the files of this build are removed).
    """
    inputs = distinct(kept, examples)
    folder = place.folder(kept.key)
    names = [kept.name(e) for e in inputs]
    remove_damaged(folder, names, say)
    shards = holding(folder, names)
    if not lacking(shards, names):
        return DiskStore(shards)
    with builder(folder, wait=False) as alone:
        if not alone:
            say(f"another run is computing {kept.content} of the same model: waiting for it")
    with builder(folder):
        remove_damaged(folder, names, say)  # another run may have written them in the meantime
        shards = _make_room(place, folder, kept, holding(folder, names), inputs, say)
        shards += _build(folder, kept, _without(kept, inputs, shards), progress, len(inputs))
        return DiskStore(shards)


def _without(kept: Constant, inputs: Sequence[Example], shards: Sequence[Shard]) -> list[Example]:
    """Return the inputs that none of the files holds."""
    new = set(lacking(shards, [kept.name(e) for e in inputs]))
    return [e for e in inputs if kept.name(e) in new]


def _make_room(
    place: CacheFolder,
    folder: Path,
    kept: Constant,
    shards: list[Shard],
    inputs: list[Example],
    say: Say,
) -> list[Shard]:
    """Make room for the inputs that `shards` lack; return the shards that are left."""

    def needed(shards: list[Shard]) -> int:
        new = _without(kept, inputs, shards)
        return kept.bytes_needed(new) + NAMING_BYTES * len(new)

    if sum(shard.bytes for shard in shards) + needed(shards) > place.budget():
        # files that also hold rows of other runs take too much room: our rows in them are computed again
        wanted = {kept.name(e) for e in inputs}
        shards = [shard for shard in shards if wanted.issuperset(shard.names)]
    gone = place.make_room(folder, needed(shards), {shard.path for shard in shards})
    if gone:
        say(f"the longest unused caches were removed to make room: {', '.join(map(str, gone))}")
    return shards


def _build(
    folder: Path,
    kept: Constant,
    inputs: list[Example],
    progress: Progress | None,
    total: int,
) -> list[Shard]:
    """Compute and write these inputs.

    A file ends where it is large, or where computing it took so long that a kill would lose much.
    """
    remove_unfinished(folder)
    written: list[Shard] = []
    part: list[tuple[Example, Row]] = []

    def write_part() -> None:
        written.append(write(folder, [kept.name(e) for e, _ in part], [row for _, row in part]))
        part.clear()

    done, held, started = total - len(inputs), 0, time.monotonic()
    try:
        for chunk in by_tokens(range(len(inputs)), [kept.tokens(e) for e in inputs], BATCH_TOKENS):
            batch = [inputs[i] for i in chunk]
            part += zip(batch, kept.compute(batch), strict=True)
            held += kept.bytes_needed(batch)
            done += len(batch)
            if held >= SHARD_BYTES or time.monotonic() - started >= SHARD_SECONDS:
                write_part()
                held, started = 0, time.monotonic()
            if progress:
                progress(done, total)
        if part:
            write_part()
    except Exception:
        for shard in written:
            remove(shard.path)
        raise
    return written
