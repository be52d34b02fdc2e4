"""Prompts are found by name under one folder, and loaded when they are first used.

A name is an artifact's path under the folder, with slashes ("team-a/support"); "team-a/support:joke" is one
of several prompts in an artifact. Nothing is indexed: a name is a path, so a hundred thousand artifacts start
as fast as one; a listing reads each manifest that it reaches, once. `versions` keeps what is loaded, and
users of a version keep it when a newer one replaces it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from .._system.files import RESTORE
from ..artifacts import artifact as artifacts
from ..artifacts.artifact import MANIFEST, Artifact
from ..artifacts.hub.download import folder_of
from ..artifacts.manifest import BASE
from ..build import encoder_of, room_of, template_of
from ..config.load import Recipe
from ..data.encode import Encoder
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..methods.materialised import Materialised
from ..tuned import Tuned, opened
from .contents import Contents, head_of, names_of, problem_of
from .context import vectors_of
from .file_stamps import stamp_of
from .names import Entry, Names, one_form
from .request import UnknownPrompt
from .served_base import ServedBase
from .versions import Versions

ENCODERS = 1024  # kept, each for artifacts with equal templates, labels and limits


@dataclass(frozen=True, slots=True)
class Loaded:
    """One version of a prompt that is ready to use."""

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
        with torch.no_grad():
            return vectors_of(
                self.tuned.method.static(torch.tensor([self.index], device=self.tuned.lm.device))
            )


@final
class Registry:
    """The prompts under a folder, or of `hf:ID@REVISION`, are loaded for one base model.

    Any thread may call this.
    """

    def __init__(
        self, folder: str | Path, model: LanguageModel, *, max_bytes: int = 2**30, trials: bool = False
    ) -> None:
        _check_readable(folder_of(folder)[0])
        self.model = model
        self._names, self._base = Names(folder, trials=trials), ServedBase(model)
        self._contents = Contents()
        self._versions = Versions(self._open, max_bytes)
        self._encoders: OrderedDict[str, Encoder] = OrderedDict()

    @property
    def bytes(self) -> int:
        return self._versions.bytes

    @property
    def outdated(self) -> int:
        """The number of names whose version on disk cannot be served, so that an older one answers."""
        return self._versions.outdated

    def names(self) -> Iterator[Entry]:
        """Yield every artifact, as folders are walked; those of one folder are sorted by name."""
        return (self._entry(path, name) for name, path in self._names.walk())

    def holds(self, name: str) -> bool:
        """Return whether a prompt, or an artifact of several, has this name, without opening it."""
        return self._names.holds(name)

    def describe(self, name: str) -> Entry:
        """Describe an artifact. Raises UnknownPrompt."""
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
        """Return a prompt as it is on disk now. Raises UnknownPrompt and BrokenPrompt.

        While a new version is written, or is broken, the last good one is served, if it is still loaded.
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
            for gone in (name, name.partition(":")[0]):  # the artifact does not exist either
                self._versions.forget(one_form(gone))
            raise

    def _entry(self, path: Path, name: str) -> Entry:
        manifest = stamp_of(path / MANIFEST)
        modified = 0.0 if manifest is None else manifest[1] / 1e9
        content, known = self._contents.of(path), self._versions.problem(path)
        problem = str(known) if known is not None else content.problem_for(self._base)
        last = None if problem is None else self._versions.last_good(path, one_form(name))
        prompts = content.prompts if last is None else last.tuned.artifact.prompts
        served = problem is None or last is not None
        return Entry(name, path, modified, problem, prompts, tuple(names_of(name, prompts)), served)

    def _open(self, artifact: Artifact) -> Tuned:
        manifest = artifact.manifest
        if (problem := problem_of(manifest)) is not None:
            raise SoftPromptError(
                f"{artifact} cannot be served",
                why=problem,
                fix="softprompt generate runs any prompt; a server takes prompts of a frozen base, and heads "
                "that were trained to classify",
            )
        size = head_of(manifest)
        artifact.check_base(self.model, self._base.fingerprint(size))
        lm = self._base.model(size)
        if size and (missing := sorted(lm.head_names - artifact.tensors(BASE).keys())):
            raise SoftPromptError(
                f"{artifact} lacks a part of its head", why=f"'{missing[0]}' is not in {BASE}", fix=RESTORE
            )
        # other_base: which was just checked
        tuned = opened(artifact, lm, other_base=True, encoder=partial(self._encoder, lm))
        method = tuned.method
        if isinstance(method, Materialised):
            # copies, since tensors of a mapped file change when the file is overwritten in place
            method.prompts = tuple(p.map_rows(self._copied) for p in method.prompts)
        return tuned

    def _copied(self, tensor: Tensor) -> Tensor:
        """Copy a tensor, numbers in the model's precision, so that no request converts them again."""
        return tensor.to(self.model.dtype if tensor.is_floating_point() else tensor.dtype, copy=True)

    def _encoder(self, lm: LanguageModel, recipe: Recipe, artifact: Artifact) -> Encoder:
        """Return the encoder, shared by artifacts with equal settings: making one takes milliseconds."""
        prompts, labels = artifact.prompts, artifact.manifest["labels"]
        limits = recipe.data.max_input_tokens, recipe.data.max_target_tokens, recipe.data.prompt_field
        room = room_of(recipe, lm)
        key = repr((recipe.template, recipe.task, limits, room, prompts, labels))
        if key not in self._encoders:
            template = template_of(recipe, lm)
            self._encoders[key] = encoder_of(recipe, lm, template, prompts, labels).settled()
            if len(self._encoders) > ENCODERS:
                self._encoders.popitem(last=False)
        self._encoders.move_to_end(key)
        return self._encoders[key]


def _of_artifact(name: str, prompt: str | None) -> str:
    return one_form(name if prompt is None else name.partition(":")[0])


def _as_written(prompt: str | None, held: tuple[str, ...]) -> str | None:
    """Return the name of a prompt as its artifact writes it, where only accents are encoded differently."""
    if prompt is None or prompt in held:
        return prompt
    return next((name for name in held if one_form(name) == one_form(prompt)), prompt)


def _check_readable(folder: Path) -> None:
    if not folder.is_dir():
        raise SoftPromptError(f"no folder {folder}", fix="give the folder that holds tuned prompts")
    try:
        os.listdir(folder)
    except OSError as error:
        raise SoftPromptError(f"cannot read {folder}", why=error.strerror or str(error)) from None
