"""Where caches lie on disk, what names them, and how many bytes may be there.

A folder is named by a hash of all that the numbers depend on besides the input: the base (every weight
of it), its precision and the form in which they are kept. A row in it is named by a hash of the input's
token ids. So a changed template, row or weight never reads an old cache, and runs that differ in
anything else (method, seed, split, task), or by a few rows, share what they have in common.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
import zlib
from array import array
from collections.abc import Collection, Iterator, Sequence
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
    """A file of rows that is on disk."""

    path: Path
    bytes: int
    used: float  # when a run last opened or wrote it, seconds since 1970


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of caches, and the bytes that all of them together may take."""

    root: Path = field(default_factory=default_root)
    limit: int | None = None  # None: a share of the disk

    def folder(self, key: str) -> Path:
        """Of the rows of one base."""
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
    """Be the only run that writes in a folder or removes from it; False where another does (`wait=False`)."""
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


def name_of(example: Example) -> str:
    """The name of a row: its input's."""
    return hashlib.sha256(array("q", example.input_ids).tobytes()).hexdigest()[:32]


def key_of(lm: LanguageModel, form: Form) -> str:
    """The name of the folder that holds a base's rows."""
    import transformers

    about = {
        "format": FORMAT,
        "base": fingerprint(lm),
        "weights": _checksum(lm),
        "dtype": str(lm.dtype),
        "form": form,
        "transformers": transformers.__version__,  # a family's code is mended now and then
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def _checksum(lm: LanguageModel) -> int:
    """Of every weight: `fingerprint` samples them, and one embedding trained anew could slip through."""
    found = 0
    for name, tensor in sorted(lm.model.state_dict().items()):
        if name not in lm.head_names:
            plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            found = zlib.crc32(plain.numpy(), found)
    return found
