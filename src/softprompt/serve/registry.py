"""Prompts by name: the folders of artifacts under one folder, loaded when they are first asked for.

A name is an artifact's path under the folder, with slashes ("team-a/support"); of an artifact that holds
several prompts, one is meant by "team-a/support:joke". Nothing is indexed: a name is a path, so a hundred
thousand artifacts are no slower to start with than one; a listing reads each manifest that it reaches, once.
What is loaded is held by `versions`, and whoever uses it may go on with it when a newer version takes its
place.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from ..artifacts import artifact as artifacts
from ..artifacts.artifact import MANIFEST, Artifact
from ..artifacts.manifest import BASE
from ..build import encoder_of, room_of, template_of
from ..config.load import Recipe
from ..data.encode import Encoder
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..lm.loading import fingerprint
from ..methods.materialised import Materialised
from ..tuned import Tuned, opened
from .contents import Contents, names_of
from .context import vectors_of
from .file_stamps import stamp_of
from .names import Entry, Names, one_form
from .request import UnknownPrompt
from .versions import Versions

ENCODERS = 1024  # kept, of artifacts that are used alike


@dataclass(frozen=True, slots=True)
class Loaded:
    """One version of a prompt, ready to use."""

    name: str
    tuned: Tuned
    index: int  # of the prompt in its artifact
    fingerprint: str  # of its vectors' content
    bytes: int
    outdated: bool = False  # a newer version is on disk, which cannot be served

    @property
    def encoder(self) -> Encoder:
        return self.tuned.encoder

    @property
    def recipe(self) -> Recipe:
        return self.tuned.recipe

    @property
    def method_name(self) -> str:
        return str(self.tuned.artifact.manifest["method"])

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
        _check_readable(Path(folder))
        self.model = model
        self._names, self._base = Names(folder, trials=trials), fingerprint(model)
        self._contents = Contents()
        self._versions = Versions(self._open, max_bytes)
        self._encoders: OrderedDict[str, Encoder] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Of what is loaded."""
        return self._versions.bytes

    @property
    def outdated(self) -> int:
        """Names by which a version answers that is not the one on disk, since that one cannot be served."""
        return self._versions.outdated

    def names(self) -> Iterator[Entry]:
        """Every artifact, as the folders are walked; those of one folder in the order of their names."""
        return (self._entry(path, name) for name, path in self._names.walk())

    def holds(self, name: str) -> bool:
        """Whether a prompt, or an artifact of several, has this name. Opens nothing."""
        return self._names.holds(name)

    def describe(self, name: str) -> Entry:
        """An artifact by name. Raises UnknownPrompt."""
        path, prompt = self._find(name)
        entry = self._entry(path, name)
        try:
            held = artifacts.load(path, verify=False).prompts
        except SoftPromptError as error:
            last = self._versions.last_good(path, _of_artifact(name, prompt))
            held = () if last is None else last.tuned.artifact.prompts
            entry = replace(entry, problem=str(error))
        return replace(entry, prompts=(prompt,) if prompt and held else held)

    def get(self, name: str) -> Loaded:
        """A prompt by name, as it lies on disk now. Raises UnknownPrompt and BrokenPrompt.

        While a new version is written, or is broken, the last good one is served as long as it is held.
        """
        path, prompt = self._find(name)
        version, outdated = self._versions.current(path, _of_artifact(name, prompt))
        artifact = version.tuned.artifact
        try:
            index = artifact.index(_as_written(prompt, artifact.prompts))
        except SoftPromptError as error:
            raise UnknownPrompt(error.what, error.why, f"use one of: {name}:NAME") from None
        return Loaded(name, version.tuned, index, f"{version.content}:{index}", version.bytes, outdated)

    def _find(self, name: str) -> tuple[Path, str | None]:
        try:
            return self._names.find(name)
        except UnknownPrompt:
            for gone in (name, name.partition(":")[0]):  # there is no such artifact either
                self._versions.forget(one_form(gone))
            raise

    def _entry(self, path: Path, name: str) -> Entry:
        manifest = stamp_of(path / MANIFEST)
        modified = 0.0 if manifest is None else manifest[1] / 1e9
        content, known = self._contents.of(path), self._versions.problem(path)
        problem = str(known) if known is not None else content.problem_for(self._base["weights"])
        last = None if problem is None else self._versions.last_good(path, one_form(name))
        prompts = content.prompts if last is None else last.tuned.artifact.prompts
        served = problem is None or last is not None
        return Entry(name, path, modified, problem, prompts, tuple(names_of(name, prompts)), served)

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


def _of_artifact(name: str, prompt: str | None) -> str:
    """The name of the artifact that a prompt's name begins with."""
    return one_form(name if prompt is None else name.partition(":")[0])


def _as_written(prompt: str | None, held: tuple[str, ...]) -> str | None:
    """The name of a prompt as its artifact writes it, where only accents are written otherwise."""
    if prompt is None or prompt in held:
        return prompt
    return next((one for one in held if one_form(one) == one_form(prompt)), prompt)


def _check_readable(folder: Path) -> None:
    """Raises SoftPromptError for what is no folder, or is not ours to read."""
    if not folder.is_dir():
        raise SoftPromptError(f"no folder {folder}", fix="give the folder that holds tuned prompts")
    try:
        os.listdir(folder)
    except OSError as error:
        raise SoftPromptError(f"cannot read {folder}", why=error.strerror or str(error)) from None
