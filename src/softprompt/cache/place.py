"""Where caches lie on disk, what names them, and how many may be there.

A cache's name is a hash of all that its numbers depend on: the base (every weight of it), its
precision, the inputs' token ids and the form in which they are kept. So a changed template, row or
weight is another cache, and runs that differ in anything else (method, seed, split, task) share one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..data.encode import Example
from ..lm.base import LanguageModel
from ..lm.loading import fingerprint
from ..lm.smollm2 import cache_root
from .rows import Form

FORMAT = 1  # to be raised with any change of what a cache holds or how it is computed
BUDGET_SHARE = 0.4  # of the disk that is free or held by caches, where the user names no budget


def default_root() -> Path:
    """kv/ in $SOFTPROMPT_CACHE, or in softprompt/ of the user's cache folder."""
    return cache_root() / "kv"


@dataclass(frozen=True, slots=True)
class Held:
    """A cache, whole or not, that is on disk."""

    folder: Path
    bytes: int
    used: float  # when it was last opened or added to, seconds since 1970


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of caches, and the bytes that all of them together may take."""

    root: Path = field(default_factory=default_root)
    limit: int | None = None  # None: a share of the disk

    def folder(self, key: str) -> Path:
        """Of the cache of that name."""
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
        for folder in filter(Path.is_dir, self.root.glob("*")):
            # each file is asked for by itself: another run may be removing them
            sizes = [_size(path) for path in folder.glob("*")]
            if sizes:
                found.append(Held(folder, sum(sizes), _modified(folder)))
        return sorted(found, key=lambda held: held.used)

    def make_room(self, folder: Path, needed: int) -> list[Path]:
        """Remove the longest unused caches until `needed` bytes in `folder` fit; what was removed.

        A cache that is being built stays. One that is being read goes, but its reader keeps the pages
        that it has mapped.
        """
        others = [held for held in self.held() if held.folder != folder]
        over = sum(held.bytes for held in others) + needed - self.budget()
        removed = []
        for held in others:
            if over <= 0:
                break
            with builder(held.folder, wait=False) as alone:
                if alone:
                    shutil.rmtree(held.folder, ignore_errors=True)
                    removed.append(held.folder)
                    over -= held.bytes
        return removed


@contextmanager
def builder(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Be the only process that builds or removes this cache; False where another one does (`wait=False`)."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def distinct(examples: Sequence[Example]) -> list[Example]:
    """One example for each input that occurs, by length and ids: the order is that of no run."""
    by_ids = {tuple(e.input_ids): e for e in examples}
    return [by_ids[ids] for ids in sorted(by_ids, key=lambda ids: (len(ids), ids))]


def key_of(lm: LanguageModel, inputs: Sequence[Example], form: Form) -> str:
    """The name of the cache of `inputs` (see `distinct`)."""
    import transformers

    about = {
        "format": FORMAT,
        "base": fingerprint(lm),
        "weights": _checksum(lm),
        "dtype": str(lm.dtype),
        "form": form,
        "transformers": transformers.__version__,  # a family's code is mended now and then
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for example in inputs:
        digest.update(array("q", [len(example.input_ids), *example.input_ids]).tobytes())
    return digest.hexdigest()[:32]


def _checksum(lm: LanguageModel) -> int:
    """Of every weight: `fingerprint` samples them, and one embedding trained anew could slip through."""
    found = 0
    for name, tensor in sorted(lm.model.state_dict().items()):
        if name not in lm.head_names:
            plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            found = zlib.crc32(plain.numpy(), found)
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _modified(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0
