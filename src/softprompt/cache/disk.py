"""The inputs' keys and values in files that are mapped into memory, shared by all runs over these inputs.

A cache is a folder of safetensors files of a few hundred MB (a tensor or more a row, `ROW.PART`) and an
index, written last. Files are written whole or not at all, so a build that was killed goes on with the
files that it had made. The system reads from the disk what a batch needs, and keeps it as long as there
is memory that nobody else wants.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

from safetensors import SafetensorError, safe_open

from .. import files
from ..data.encode import Example
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.context import Context
from .place import Place, builder, distinct, key_of
from .rows import BATCH_TOKENS, Form, Row, assemble, bytes_needed, chunks, compute

SHARD_BYTES = 200_000_000
INDEX = "index.json"

Say = Callable[[str], None]


@final
class DiskStore:
    """The mapped files of a cache. `cache(examples)` is that of some of its inputs, in their order."""

    def __init__(self, folder: Path, shards: list[dict[str, Any]], inputs: list[Example], form: Form) -> None:
        # all at once, and not when they are needed: a mapping outlives the removal of its file
        self._files = [safe_open(folder / shard["file"], "pt") for shard in shards]
        self._first = [shard["first"] for shard in shards]
        self._parts = [len(file.keys()) // s["rows"] for file, s in zip(self._files, shards, strict=True)]
        self._numbers = {tuple(e.input_ids): number for number, e in enumerate(inputs)}
        self.form: Form = form
        self.bytes = sum(shard["bytes"] for shard in shards)

    def row(self, number: int) -> Row:
        """Views of the mapped file: nothing is copied."""
        shard = bisect_right(self._first, number) - 1
        return [self._files[shard].get_tensor(f"{number}.{part}") for part in range(self._parts[shard])]

    def cache(self, examples: Sequence[Example]) -> DiskCache:
        """The cache of these examples; their inputs must be among those that the store was opened for."""
        return DiskCache(self, [self._numbers[tuple(e.input_ids)] for e in examples])


@final
class DiskCache:
    """A `ContextCache` that reads the rows of a batch from a `DiskStore`."""

    def __init__(self, store: DiskStore, numbers: list[int]) -> None:
        self._store, self._numbers = store, numbers

    @property
    def bytes(self) -> int:
        """On disk, of the whole store."""
        return self._store.bytes

    def __len__(self) -> int:
        return len(self._numbers)

    def context(self, indices: Sequence[int], lm: LanguageModel) -> Context:
        """The context of a batch of rows, right-aligned."""
        return assemble([self._store.row(self._numbers[i]) for i in indices], self._store.form, lm)


def is_stored(folder: Path) -> bool:
    """Whether a whole cache is there (its files may yet turn out to be damaged)."""
    return (folder / INDEX).exists()


def open_or_build(
    place: Place,
    lm: LanguageModel,
    examples: Sequence[Example],
    *,
    form: Form = "auto",
    progress: Callable[[int, int], None] | None = None,
    say: Say = lambda text: None,
) -> DiskStore:
    """The store of the examples' inputs, computed where it is not there yet or damaged.

    `progress(done, total)` counts distinct inputs. Raises OSError, or SoftPromptError caused by one,
    where it cannot be written (a full disk: what was written of it is removed).
    """
    inputs = distinct(examples)
    folder = place.folder(key_of(lm, inputs, form))
    shards = _intact(folder, say)
    if shards is None:
        with builder(folder, wait=False) as alone:
            if not alone:
                say("another run is computing the same cache: waiting for it")
        with builder(folder):
            shards = _intact(folder, say)  # another run may have been first
            if shards is None:
                for removed in place.make_room(folder, bytes_needed(lm, inputs, form)):
                    say(f"the longest unused cache was removed to make room: {removed}")
                shards = _build(folder, lm, inputs, form, progress)
    os.utime(folder)
    return DiskStore(folder, shards, inputs, form)


def _build(
    folder: Path,
    lm: LanguageModel,
    inputs: list[Example],
    form: Form,
    progress: Callable[[int, int], None] | None,
) -> list[dict[str, Any]]:
    """Write what is missing, and the index last; the index's entries."""
    for left in folder.glob(".*"):  # of a build that was killed while it wrote
        left.unlink()
    shards: list[dict[str, Any]] = []
    first = 0
    try:
        for number, shard in enumerate(_shards(lm, inputs, form)):
            path = folder / f"{number:05}.safetensors"
            rows = sum(map(len, shard))
            if not _is_readable(path):
                files.write_tensors(path, _tensors(lm, inputs, shard, form))
            shards.append(
                {"file": path.name, "first": first, "rows": rows, **_state(path), "crc32": _crc(path)}
            )
            first += rows
            if progress:
                progress(first, len(inputs))
        files.write_text(folder / INDEX, json.dumps({"shards": shards}))
    except SoftPromptError as error:
        if isinstance(error.__cause__, OSError):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return shards


def _shards(lm: LanguageModel, inputs: list[Example], form: Form) -> list[list[list[int]]]:
    """Chunks of row numbers, by the file that they go to; the same for the same inputs."""
    shards: list[list[list[int]]] = []
    held = SHARD_BYTES
    for chunk in chunks(range(len(inputs)), inputs, BATCH_TOKENS):
        if held >= SHARD_BYTES:
            shards.append([])
            held = 0
        shards[-1].append(chunk)
        held += bytes_needed(lm, [inputs[i] for i in chunk], form)
    return shards


def _tensors(lm: LanguageModel, inputs: list[Example], shard: list[list[int]], form: Form) -> dict[str, Any]:
    rows = (
        (index, row)
        for chunk in shard
        for index, row in zip(chunk, compute(lm, [inputs[i] for i in chunk], form), strict=True)
    )
    return {f"{index}.{part}": tensor for index, row in rows for part, tensor in enumerate(row)}


def _intact(folder: Path, say: Say) -> list[dict[str, Any]] | None:
    """The index's entries where every file is as it was written; damaged files are removed.

    Contents are read only where a file's size or time says that it was touched: a cache may be larger
    than memory, and a run is to start at once.
    """
    try:
        shards = json.loads((folder / INDEX).read_text(encoding="utf-8"))["shards"]
        damaged = [shard["file"] for shard in shards if not _is_as_written(folder / shard["file"], shard)]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        shards, damaged = [], [INDEX]
    if not damaged:
        return shards
    say(f"a damaged cache is computed again: {', '.join(damaged)} in {folder}")
    for name in (INDEX, *damaged):
        (folder / name).unlink(missing_ok=True)
    return None


def _is_as_written(path: Path, entry: dict[str, Any]) -> bool:
    try:
        found = _state(path)
        untouched = all(found[name] == entry[name] for name in found)
        return untouched or (found["bytes"] == entry["bytes"] and _crc(path) == entry["crc32"])
    except OSError:
        return False


def _is_readable(path: Path) -> bool:
    try:
        with safe_open(path, "pt"):
            return True
    except (OSError, SafetensorError):
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
