"""Many artifacts are compiled into one folder; this file finds and names their prompts."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...._system.progress import track
from ....errors import SoftPromptError
from ....lm.base import LanguageModel
from ... import artifact as artifacts
from ...artifact import MANIFEST, Artifact
from ...prompt_names import is_trial
from .checks import injection_of
from .compile import base_of, compiled_kv, tokens_after
from .folder import AFTER, Entry, Folder, check_artifact

Broken = list[tuple[str, SoftPromptError]]  # artifacts that cannot be read, by name


@dataclass(frozen=True, slots=True)
class Source:
    """A prompt that is to be compiled under a name."""

    artifact: Artifact
    prompt: str
    name: str


def sources(paths: Sequence[Path], broken: Broken | None = None) -> list[Source]:
    """Return every prompt under the paths: an artifact by its folder's name, those in a folder by their path.

    They are the prompts, with the names, that a server of the folder has: nothing hidden, nothing inside an
    artifact, no trials of comparisons, but links to artifacts in the folder. One of several prompts in an
    artifact is ARTIFACT:PROMPT. Raises SoftPromptError where two have the same name, there is none, or one is
    damaged; where `broken` is given, damaged ones of a folder are added to it by name instead.
    """
    prompts = [
        Source(artifact, prompt, name if len(artifact.prompts) == 1 else f"{name}:{prompt}")
        for path in paths
        for name, artifact in _artifacts(path, broken)
        for prompt in artifact.prompts
    ]
    twice = {source.name: source for source in prompts}
    if len(twice) < len(prompts):
        name = next(source.name for source in prompts if twice[source.name] is not source)
        both = " and ".join(str(source.artifact) for source in prompts if source.name == name)
        raise SoftPromptError(
            f"two prompts would be called '{name}': {both}",
            why="a name means one prompt",
            fix="rename a folder, or compile the folder that holds both: names are paths below it",
        )
    return prompts


def _artifacts(path: Path, broken: Broken | None) -> Iterator[tuple[str, Artifact]]:
    if os.path.lexists(path / MANIFEST) or not path.is_dir():
        artifact = artifacts.load(path)
        name = artifact.reference.id if artifact.reference else os.path.basename(os.path.abspath(path))
        check_artifact(name)
        yield name, artifact
        return
    below = sorted(_folders(path))
    if not below:
        raise SoftPromptError(
            f"no tuned prompt in {path}",
            why=f"no folder below it has a {MANIFEST}",
            fix="give what tune wrote",
        )
    for folder in below:
        name = folder.relative_to(path).as_posix()
        try:
            check_artifact(name)
            artifact = artifacts.load(folder)
        except SoftPromptError as error:
            if broken is None:
                raise
            broken.append((name, error))
            continue
        yield name, artifact


def _folders(path: Path) -> Iterator[Path]:
    root = path.resolve()
    for at, inner, _ in os.walk(path):
        plain = []
        for name in inner:
            folder = Path(at, name)
            if name.startswith(".") or not folder.resolve().is_relative_to(root):
                continue
            if os.path.lexists(folder / MANIFEST):
                if folder.parent == path or not is_trial(folder.parent, name):
                    yield folder
            else:
                plain.append(name)
        inner[:] = plain


def compile_all(
    prompts: Sequence[Source],
    lm: LanguageModel,
    out: Path,
    *,
    other_base: bool = False,
    taken: str | None = None,
) -> Iterator[Entry | SoftPromptError]:
    """Compile each prompt into `out`; yield its entry, or the error of a prompt that cannot be compiled.

    `taken` is the base's name for clients, which no prompt may have.
    """
    folder = Folder(out)
    base = base_of(lm)
    for source in track(prompts, "compiling"):
        try:
            _check_name(source, taken)
            folder.check_name(source.name)
            injection = injection_of(source.artifact, lm, source.prompt, other_base=other_base)
            after = tokens_after(injection)
            kept = None if after is None else {AFTER: after.to(lm.dtype)}
            tensors = kept or compiled_kv(injection, lm).tensors()
            folder.begin(base)  # only now, so that a failure leaves no empty folder
        except SoftPromptError as error:
            yield error
            continue
        if after is not None:
            folder.add_embeddings(lambda: lm.embed(torch.arange(lm.spec.vocab_size, device=lm.device)))
        yield folder.add(tensors, functools.partial(_entry, source, tensors, lm))


def _check_name(source: Source, taken: str | None) -> None:
    if source.name.partition(":")[0] == taken:
        raise SoftPromptError(
            f"'{taken}' is the base model's name and a prompt's",
            why="clients of a gateway name a prompt, or the base, by the name alone",
            fix=f"rename {source.artifact}, or compile a folder above it: names are paths below it",
        )


def _entry(source: Source, tensors: dict[str, Tensor], lm: LanguageModel, sha256: str, size: int) -> Entry:
    manifest = source.artifact.manifest
    return Entry(
        name=source.name,
        prompt=source.prompt,
        sha256=sha256,
        kind="after" if AFTER in tensors else "kv",
        length=next(iter(tensors.values())).shape[0],
        bytes=size,
        dtype=str(lm.dtype).removeprefix("torch."),
        method=manifest["method"],
        recipe=manifest["recipe"],
        labels=tuple(manifest["labels"] or ()),
    )
