"""The inputs' keys and values in files that are mapped into memory, shared by all runs over these inputs.

The system reads from the disk what a batch needs, and keeps it as long as there is memory that nobody
else wants. A build that was killed goes on with the files that it had made (see `shards`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

from safetensors import safe_open

from ..data.encode import Example
from ..lm.base import LanguageModel
from ..lm.context import Context
from .place import Place, builder, distinct, entry_of, key_of, name_of, remove
from .rows import BATCH_TOKENS, Form, Row, assemble, bytes_needed, chunks, compute
from .shards import Say, Shard, holding, lacking, remove_unfinished, write

SHARD_BYTES = 200_000_000
NAMING_BYTES = 200  # a row, of a file's header and its entry

Progress = Callable[[int, int], None]


@final
class DiskStore:
    """Mapped files. `cache(examples)` is the cache of some of the inputs that it was opened for."""

    def __init__(self, shards: Sequence[Shard], form: Form) -> None:
        # all at once, and not when they are needed: a mapping outlives the removal of its file
        opened = [safe_open(shard.path, "pt") for shard in shards]
        self._parts = [len(file.keys()) // len(s.names) for file, s in zip(opened, shards, strict=True)]
        self._files = opened
        self._where = {name: (k, i) for k, shard in enumerate(shards) for i, name in enumerate(shard.names)}
        self.form: Form = form
        self.bytes = sum(shard.bytes for shard in shards)
        for shard in shards:
            os.utime(entry_of(shard.path))  # the longest unused are the first to be removed

    def row(self, name: str) -> Row:
        """Views of the mapped file: nothing is copied."""
        file, position = self._where[name]
        return [self._files[file].get_tensor(f"{position}.{part}") for part in range(self._parts[file])]

    def cache(self, examples: Sequence[Example]) -> DiskCache:
        """The cache of these examples, in their order."""
        return DiskCache(self, [name_of(e) for e in examples])


@final
class DiskCache:
    """A `ContextCache` that reads the rows of a batch from a `DiskStore`."""

    def __init__(self, store: DiskStore, names: list[str]) -> None:
        self._store, self._names = store, names

    @property
    def bytes(self) -> int:
        """On disk, of the whole store."""
        return self._store.bytes

    def __len__(self) -> int:
        return len(self._names)

    def context(self, indices: Sequence[int], lm: LanguageModel) -> Context:
        """The context of a batch of rows, right-aligned."""
        return assemble([self._store.row(self._names[i]) for i in indices], self._store.form, lm)


def open_or_build(
    place: Place,
    lm: LanguageModel,
    examples: Sequence[Example],
    *,
    form: Form = "auto",
    progress: Progress | None = None,
    say: Say = lambda text: None,
) -> DiskStore:
    """The store of the examples' inputs; what is not there yet, or damaged, is computed.

    `progress(done, total)` counts distinct inputs. Raises OSError, or SoftPromptError caused by one,
    where they cannot be written (a full disk: what was written is removed).
    """
    inputs = distinct(examples)
    folder = place.folder(key_of(lm, form))
    shards = holding(folder, inputs, say)
    if not lacking(shards, inputs):
        return DiskStore(shards, form)
    with builder(folder, wait=False) as alone:
        if not alone:
            say("another run is computing keys and values of the same model: waiting for it")
    with builder(folder):
        # another run may have been first
        shards = _room(place, folder, lm, holding(folder, inputs, say), inputs, form, say)
        shards += _build(folder, lm, lacking(shards, inputs), form, progress, len(inputs))
        return DiskStore(shards, form)


def _room(
    place: Place,
    folder: Path,
    lm: LanguageModel,
    shards: list[Shard],
    inputs: list[Example],
    form: Form,
    say: Say,
) -> list[Shard]:
    """Make room for the inputs that `shards` lack; the shards that are left."""

    def needed(shards: list[Shard]) -> int:
        new = lacking(shards, inputs)
        return bytes_needed(lm, new, form) + NAMING_BYTES * len(new)

    if sum(shard.bytes for shard in shards) + needed(shards) > place.budget():
        # rows of other runs beside some of ours are too much: ours are computed again
        wanted = {name_of(e) for e in inputs}
        shards = [shard for shard in shards if wanted.issuperset(shard.names)]
    gone = place.make_room(folder, needed(shards), {shard.path for shard in shards})
    if gone:
        say(f"the longest unused caches were removed to make room: {', '.join(map(str, gone))}")
    return shards


def _build(
    folder: Path,
    lm: LanguageModel,
    inputs: list[Example],
    form: Form,
    progress: Progress | None,
    total: int,
) -> list[Shard]:
    """Compute and write these inputs."""
    remove_unfinished(folder)
    made: list[Shard] = []
    done = total - len(inputs)
    try:
        for part in _parts(lm, inputs, form):
            rows = [row for chunk in part for row in compute(lm, chunk, form)]
            made.append(write(folder, [name_of(e) for chunk in part for e in chunk], rows))
            done += sum(map(len, part))
            if progress:
                progress(done, total)
    except Exception:
        for shard in made:
            remove(shard.path)
        raise
    return made


def _parts(lm: LanguageModel, inputs: list[Example], form: Form) -> list[list[list[Example]]]:
    """Inputs that go through the model together, by the file that they go to."""
    parts: list[list[list[Example]]] = []
    held = SHARD_BYTES
    for chunk in chunks(range(len(inputs)), inputs, BATCH_TOKENS):
        if held >= SHARD_BYTES:
            parts.append([])
            held = 0
        parts[-1].append([inputs[i] for i in chunk])
        held += bytes_needed(lm, parts[-1][-1], form)
    return parts
