"""The newest versions of artifacts are loaded, and the last good ones kept where those are broken.

A verified version is not hashed again until one of its files changes. Loaded versions are kept while there is
room. Where a newer version cannot be served, the last good one answers, and the log says so once for each
version.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from .._system.files import RESTORE
from ..artifacts import artifact as artifacts
from ..artifacts.artifact import MANIFEST, Artifact
from ..artifacts.manifest import BASE, STATE, VECTORS
from ..errors import SoftPromptError
from ..methods.materialised import Materialised
from ..tuned import Tuned
from .file_stamps import Stamp, is_momentary, remember, settled, stamp_of
from .request import BrokenPrompt

log = logging.getLogger("softprompt.serve")
FILES = (MANIFEST, VECTORS, STATE, BASE)
KEPT = 200_000  # remembered artifacts and names
Stamps = tuple[Stamp | None, ...]  # one for each file


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an artifact, loaded."""

    stamps: Stamps  # of its files when they were read
    tuned: Tuned
    content: str  # the hash of the served file
    bytes: int


@final
class Versions:
    """Loads versions by the folder of an artifact; `opened` makes a verified artifact ready to serve.

    Any thread may call this.
    """

    def __init__(self, opened: Callable[[Artifact], Tuned], max_bytes: int) -> None:
        self._opened, self.max_bytes = opened, max_bytes
        self._loaded: OrderedDict[Path, Version] = OrderedDict()
        self._verified: OrderedDict[Path, Stamps] = OrderedDict()
        self._problems: OrderedDict[Path, tuple[Stamps, SoftPromptError]] = OrderedDict()
        self._answered: OrderedDict[str, tuple[Path, Stamps]] = OrderedDict()  # by name, what answered last
        self._outdated: OrderedDict[str, Stamps] = OrderedDict()  # by name, the version that cannot be served
        self._lock, self._loading = threading.Lock(), threading.Lock()

    @property
    def bytes(self) -> int:
        with self._lock:
            return sum(version.bytes for version in self._loaded.values())

    @property
    def outdated(self) -> int:
        return len(self._outdated)

    def forget(self, name: str) -> None:
        with self._lock:
            self._outdated.pop(name, None)

    def problem(self, path: Path) -> SoftPromptError | None:
        """Return why the version on disk cannot be served, if it was tried."""
        known = self._problems.get(path)
        return known[1] if known is not None and known[0] == _stamps(path) else None

    def last_good(self, path: Path, name: str) -> Version | None:
        """Return the version that answered last by a name, or the one that is loaded from a folder.

        They differ where the name is a link whose target has changed.
        """
        with self._lock:
            before, stamps = self._answered.get(name, (path, None))
            version = self._loaded.get(before)
            return version if version is not None and version.stamps == stamps else self._loaded.get(path)

    def current(self, path: Path, name: str) -> tuple[Version, bool]:
        """Return the version on disk, or the last good one, and whether it is outdated.

        `name` led to the folder. Raises BrokenPrompt where there is no good version.
        """
        version = self._held(path, _stamps(path))
        if version is None:
            with self._loading:
                stamps = settled(lambda: _stamps(path))
                result = self._held(path, stamps) or self._read(path, stamps)
                if isinstance(result, SoftPromptError):
                    return self._before(path, name, stamps, result), True
                version = result
        with self._lock:
            if self._answered.get(name) != (path, version.stamps):
                remember(self._answered, name, (path, version.stamps), KEPT)
            if self._outdated.pop(name, None) is not None:
                log.info("the version of '%s' on disk is served again", name)
        return version, False

    def _held(self, path: Path, stamps: Stamps) -> Version | None:
        with self._lock:
            version = self._loaded.get(path)
            if version is None or version.stamps != stamps:
                return None
            self._loaded.move_to_end(path)
            return version

    def _before(self, path: Path, name: str, stamps: Stamps, error: SoftPromptError) -> Version:
        """Return the last good version instead of one that cannot be served. Raises BrokenPrompt."""
        why = f"{error.what}: {error.why}" if error.why else error.what
        version = self.last_good(path, name)
        if version is None:
            self.forget(name)
            raise BrokenPrompt(f"prompt '{name}' cannot be served", why=why, fix=error.fix)
        with self._lock:
            if self._outdated.get(name) != stamps:
                remember(self._outdated, name, stamps, KEPT)
                log.warning(
                    "the version of '%s' on disk cannot be served, the one before it answers on: %s",
                    name,
                    why,
                )
        return version

    def _read(self, path: Path, stamps: Stamps) -> Version | SoftPromptError:
        """Return the version on disk, or why it cannot be served.

        A broken version is read once; after an error that may disappear, it is read again.
        """
        known = self._problems.get(path)
        if known is not None and known[0] == stamps:
            return known[1]
        try:
            return self._load(path)
        except Exception as error:  # a manifest may lack anything
            plain = _as_ours(error, path)
            if not is_momentary(error):
                remember(self._problems, path, (stamps, plain), KEPT)
            return plain

    def _load(self, path: Path) -> Version:
        """Load one version; files that change meanwhile are read again."""
        for _ in range(3):
            stamps = settled(lambda: _stamps(path))
            first = self._verified.get(path) != stamps
            try:
                artifact = artifacts.load(path, verify=first)
                tuned = self._opened(artifact)
            except Exception:
                if _stamps(path) == stamps:
                    raise
                continue
            if _stamps(path) == stamps:
                break
        else:
            raise SoftPromptError(f"{path} is being written", fix="ask again when it is whole")
        remember(self._verified, path, stamps, KEPT)
        self._problems.pop(path, None)
        size = sum(t.numel() * t.element_size() for t in _tensors(tuned))
        version = Version(stamps, tuned, _content(artifact), size)
        with self._lock:
            remember(self._loaded, path, version, KEPT)
            total = sum(kept.bytes for kept in self._loaded.values())
            while total > self.max_bytes and self._loaded:
                total -= self._loaded.popitem(last=False)[1].bytes
        return version


def _as_ours(error: Exception, path: Path) -> SoftPromptError:
    """Return the error as a SoftPromptError, without its traceback, which would hold memory."""
    if isinstance(error, SoftPromptError):
        return SoftPromptError(error.what, error.why, error.fix)
    why = f"{type(error).__name__}: {error}"
    if is_momentary(error):
        return SoftPromptError(f"{path} could not be read", why, fix="ask again")
    return SoftPromptError(f"{path} is damaged", why, fix=RESTORE)


def _stamps(path: Path) -> Stamps:
    return tuple(stamp_of(path / name) for name in FILES)


def _content(artifact: Artifact) -> str:
    files = artifact.manifest["files"]
    served = VECTORS if artifact.is_static else STATE
    return "".join(files[name]["sha256"] for name in (served, BASE) if name in files)


@torch.no_grad()
def _tensors(tuned: Tuned) -> list[Tensor]:
    head = (p for name, p in tuned.lm.model.named_parameters() if name in tuned.lm.head_names)
    tensors = [*tuned.method.parameters(), *tuned.method.buffers(), *head]
    if isinstance(tuned.method, Materialised):
        for prompt in tuned.method.prompts:
            prompt.map_rows(lambda t: tensors.append(t) or t)
    return tensors
