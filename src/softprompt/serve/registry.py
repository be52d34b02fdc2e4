"""Prompts by name: the folders of artifacts under one folder, loaded when they are first asked for.

A name is an artifact's path under the folder, with slashes ("team-a/support"); of an artifact that holds
several prompts, one is meant by "team-a/support:joke". Nothing is indexed: a name is a path, so a hundred
thousand artifacts are no slower to start with than one; a listing reads each manifest that it reaches, once.
What was verified once is not hashed again until
one of its files changes; what is loaded is kept as long as it fits, and whoever holds it may go on with it
when a newer version takes its place.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from .. import artifact as artifacts
from ..api import Tuned, opened
from ..artifact import MANIFEST, Artifact
from ..config import Recipe
from ..data.encode import Encoder
from ..data.template import Template
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.loading import fingerprint
from ..manifest import BASE, STATE, VECTORS
from ..methods.materialised import Materialised
from ..prepare import encoder_of, room_of, template_of
from .contents import Contents, names_of
from .context import vectors_of
from .names import Names, one_form
from .request import BrokenPrompt, UnknownPrompt

ENCODERS = 1024  # kept, of artifacts that are used alike
FILES = (MANIFEST, VECTORS, STATE, BASE)
Stamp = tuple[tuple[int, int, int] | None, ...]  # of each file: time, size and number on disk


@dataclass(frozen=True, slots=True)
class Entry:
    """An artifact as it lies in the folder."""

    name: str
    path: Path
    modified: float  # seconds since 1970, of its manifest
    problem: str | None = None  # why it is not served, as far as that is known
    prompts: tuple[str, ...] = ()  # names of those in it, or the one that was asked for
    models: tuple[str, ...] = ()  # the names by which its prompts are asked for; of a listing
    served: bool = True  # False where a request for it is known to fail


@dataclass(frozen=True, slots=True)
class Loaded:
    """One version of a prompt, ready to use."""

    name: str
    tuned: Tuned
    index: int  # of the prompt in its artifact
    fingerprint: str  # of its vectors' content
    bytes: int

    @property
    def template(self) -> Template:
        return self.tuned.encoder.template

    @property
    def vectors(self) -> tuple[int, int]:
        """How many it has, and how many of them take places of the model's context."""
        with torch.no_grad():
            return vectors_of(
                self.tuned.method.static(torch.tensor([self.index], device=self.tuned.lm.device))
            )


@final
class Registry:
    """The prompts under a folder, for one base model. Any thread may ask."""

    def __init__(
        self, folder: str | Path, model: LanguageModel, *, max_bytes: int = 2**30, trials: bool = False
    ) -> None:
        self.folder, self.model, self.max_bytes = Path(folder).resolve(), model, max_bytes
        if not self.folder.is_dir():
            raise SoftPromptError(f"no folder {folder}", fix="give the folder that holds tuned prompts")
        self._names, self._base = Names(folder, trials=trials), fingerprint(model)
        self._contents = Contents()
        self._loaded: OrderedDict[Path, tuple[Stamp, Tuned, str, int]] = OrderedDict()
        self._verified: dict[Path, Stamp] = {}
        self._problems: dict[Path, tuple[Stamp, SoftPromptError]] = {}
        self._encoders: OrderedDict[str, Encoder] = OrderedDict()
        self._lock, self._loading = threading.Lock(), threading.Lock()

    @property
    def bytes(self) -> int:
        """Of what is loaded."""
        with self._lock:
            return sum(size for *_, size in self._loaded.values())

    def names(self) -> Iterator[Entry]:
        """Every artifact, as the folders are walked; those of one folder in the order of their names."""
        return (self._entry(path, name) for name, path in self._names.walk())

    def holds(self, name: str) -> bool:
        """Whether a prompt, or an artifact of several, has this name. Opens nothing."""
        return self._names.holds(name)

    def describe(self, name: str) -> Entry:
        """An artifact by name. Raises UnknownPrompt."""
        path, prompt = self._names.find(name)
        entry = self._entry(path, name)
        try:
            held = artifacts.load(path, verify=False).prompts
        except SoftPromptError as error:
            return replace(entry, problem=str(error))
        return replace(entry, prompts=(prompt,) if prompt else held)

    def get(self, name: str) -> Loaded:
        """A prompt by name, as it lies on disk now. Raises UnknownPrompt and BrokenPrompt.

        While a new version is written, or is broken, the last good one is served as long as it is held.
        """
        path, prompt = self._names.find(name)
        tuned, content, size = self._current(path, name)
        try:
            index = tuned.artifact.index(_as_written(prompt, tuned.artifact.prompts))
        except SoftPromptError as error:
            raise UnknownPrompt(error.what, error.why, f"use one of: {name}:NAME") from None
        return Loaded(name, tuned, index, f"{content}:{index}", size)

    def _entry(self, path: Path, name: str) -> Entry:
        try:
            modified = (path / MANIFEST).stat().st_mtime
        except OSError:
            modified = 0.0
        content, known = self._contents.of(path), self._problems.get(path)
        if known is not None and known[0] == _stamp(path):
            problem: str | None = str(known[1])
        else:
            problem = content.problem_for(self._base["weights"])
        served = problem is None or path in self._loaded  # the last good version
        names = tuple(names_of(name, content.prompts))
        return Entry(name, path, modified, problem, content.prompts, names, served)

    # --- loading ---

    def _current(self, path: Path, name: str) -> tuple[Tuned, str, int]:
        stamp = _stamp(path)
        if (held := self._held(path)) is not None and held[0] == stamp:
            return held[1:]
        with self._loading:
            stamp = _stamp(path)
            if (held := self._held(path)) is not None and held[0] == stamp:
                return held[1:]
            known = self._problems.get(path)
            if known is None or known[0] != stamp:
                try:
                    return self._load(path)
                except SoftPromptError as error:
                    known = stamp, error
                    self._problems[path] = known
            if held is not None:
                return held[1:]
            error = known[1]
            raise BrokenPrompt(
                f"prompt '{name}' cannot be served", why=f"{error.what}: {error.why}", fix=error.fix
            )

    def _held(self, path: Path) -> tuple[Stamp, Tuned, str, int] | None:
        with self._lock:
            if path in self._loaded:
                self._loaded.move_to_end(path)
            return self._loaded.get(path)

    def _load(self, path: Path) -> tuple[Tuned, str, int]:
        """One version of it: files that change while they are read are read again."""
        for _ in range(3):
            stamp = _stamp(path)
            first = self._verified.get(path) != stamp
            try:
                artifact = artifacts.load(path, verify=first)
                tuned = self._open(artifact)
            except Exception as error:  # a manifest may lack anything
                if _stamp(path) == stamp:
                    raise _as_ours(error, path) from error
                continue
            if _stamp(path) == stamp:
                break
        else:
            raise SoftPromptError(f"{path} is being written", fix="ask again when it is whole")
        self._verified[path] = stamp
        self._problems.pop(path, None)
        size = sum(t.numel() * t.element_size() for t in _tensors(tuned))
        content = _content(artifact)
        with self._lock:
            self._loaded[path] = stamp, tuned, content, size
            self._loaded.move_to_end(path)
            total = sum(held[3] for held in self._loaded.values())
            while total > self.max_bytes and self._loaded:
                total -= self._loaded.popitem(last=False)[1][3]
        return tuned, content, size

    def _open(self, artifact: Artifact) -> Tuned:
        base = artifact.manifest["base"]
        if base["mode"] != "frozen" or BASE in artifact.manifest["files"]:
            raise SoftPromptError(
                f"{artifact.path} was trained together with its base ({base['mode']}) or a head",
                why="one copy of the base model serves all prompts",
                fix="serve prompts that were trained with base=frozen and without a head",
            )
        artifact.check_base(self.model, self._base)
        tuned = opened(artifact, self.model, other_base=True, encoder=self._encoder)  # it is this one
        method = tuned.method
        if isinstance(method, Materialised):
            # copies: a file that is overwritten in place would change under whoever uses it
            method.prompts = tuple(p.map_rows(self._own) for p in method.prompts)
        return tuned

    def _own(self, tensor: Tensor) -> Tensor:
        """A copy, numbers in the model's precision: they would be brought to it for every request."""
        return tensor.to(self.model.dtype if tensor.is_floating_point() else tensor.dtype, copy=True)

    def _encoder(self, recipe: Recipe, artifact: Artifact) -> Encoder:
        """That of artifacts of the same template, labels and limits: compiling them takes milliseconds."""
        prompts, labels = artifact.prompts, artifact.manifest["labels"]
        limits = recipe.data.max_input_tokens, recipe.data.max_target_tokens, recipe.data.prompt_field
        room = room_of(recipe, self.model)
        key = repr((recipe.template, recipe.task, limits, room, prompts, labels))
        if key not in self._encoders:
            template = template_of(recipe, self.model)
            self._encoders[key] = encoder_of(recipe, self.model, template, prompts, labels).settled()
            if len(self._encoders) > ENCODERS:
                self._encoders.popitem(last=False)
        self._encoders.move_to_end(key)
        return self._encoders[key]


def _as_written(prompt: str | None, held: tuple[str, ...]) -> str | None:
    """The name of a prompt as its artifact writes it, where only accents are written otherwise."""
    if prompt is None or prompt in held:
        return prompt
    return next((one for one in held if one_form(one) == one_form(prompt)), prompt)


def _as_ours(error: Exception, path: Path) -> SoftPromptError:
    if isinstance(error, SoftPromptError):
        return error
    return SoftPromptError(
        f"{path} is damaged",
        why=f"{type(error).__name__}: {error}",
        fix="restore it from a copy, or train again",
    )


def _stamp(path: Path) -> Stamp:
    """Changes whenever a file of the artifact does."""

    def of(name: str) -> tuple[int, int, int] | None:
        try:
            found = os.stat(path / name)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    return tuple(map(of, FILES))


def _content(artifact: Artifact) -> str:
    files = artifact.manifest["files"]
    served = VECTORS if artifact.is_static else STATE
    return files[served]["sha256"]


@torch.no_grad()
def _tensors(tuned: Tuned) -> list[Tensor]:
    """All numbers that a prompt is made of."""
    found = [*tuned.method.parameters(), *tuned.method.buffers()]
    if isinstance(tuned.method, Materialised):
        for prompt in tuned.method.prompts:
            prompt.map_rows(lambda t: found.append(t) or t)
    return found
