"""Prompts made of tuned ones, as artifacts: which are meant, what is done, and the record of both.

The result is a folder like any other, whose manifest names its sources and their hashes. What the
operations mean is in `compose`; nothing here trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .._system.provenance import provenance
from ..errors import SoftPromptError
from ..injection import Injection, SoftTokens
from ..lm.base import LanguageModel
from ..methods.materialised import Materialised
from . import artifact as artifacts
from .arithmetic import average, concatenate, scale
from .artifact import Artifact
from .manifest import BASE, UNKNOWN_DATA, UNSCORED, VECTORS

METHOD = "composition"  # what an artifact's manifest calls its method


@dataclass(frozen=True, slots=True)
class Source:
    """One prompt of a tuned artifact."""

    artifact: Artifact
    prompt: str

    def injection(self, lm: LanguageModel) -> Injection:
        """Its vectors, one row. Raises SoftPromptError where none are fixed, or `lm` is not its base."""
        base = self.artifact.manifest["base"]
        if base["mode"] != "frozen" or BASE in self.artifact.manifest["files"]:
            raise SoftPromptError(
                f"{self.artifact.path} was trained together with its base ({base['mode']}) or a head",
                why="its vectors belong to weights that the others do not share",
                fix="compose prompts that were trained with base=frozen",
            )
        method = self.artifact.method(lm)
        if not isinstance(method, Materialised):
            raise SoftPromptError(
                f"{self.artifact.path} generates its prompts from the input",
                why="it holds no fixed vectors",
                fix="compose static prompts or prefixes",
            )
        found = method.prompts[self.artifact.index(self.prompt)]
        if not found.channels():
            raise SoftPromptError(
                f"{self.artifact.path} injects nothing", why="its method is 'none'", fix="leave it out"
            )
        return found

    def used_as(self, other: Source) -> bool:
        """Whether both were trained with the same template, for the same task and labels."""
        ours, theirs = self.artifact.manifest, other.artifact.manifest
        same = all(ours["recipe"][section] == theirs["recipe"][section] for section in ("template", "task"))
        return same and ours["labels"] == theirs["labels"]

    def record(self) -> dict[str, str]:
        """Where it came from, for the manifest of what is made of it."""
        manifest = self.artifact.manifest
        return {
            "folder": str(self.artifact.path),
            "prompt": self.prompt,
            "method": manifest["method"],
            "sha256": manifest["files"][VECTORS]["sha256"],
        }


@dataclass(frozen=True, slots=True)
class Operation:
    """What is made of the prompts: its name and numbers for the record, and the function that makes it."""

    name: str
    make: Callable[[Sequence[Injection], LanguageModel], Injection]
    numbers: Mapping[str, float]
    least: int  # how many prompts it takes
    most: int | None = None

    def check(self, count: int) -> None:
        """Raises SoftPromptError where it does not take so many prompts."""
        if count < self.least or (self.most is not None and count > self.most):
            wanted = f"{self.least} prompts or more" if self.most is None else "one prompt"
            raise SoftPromptError(f"{self.name} takes {wanted}, not {count}", fix="mend the list of prompts")


CONCATENATE = Operation("concatenate", concatenate, {}, least=2)
AVERAGE = Operation("average", average, {}, least=2)


def scaling(strength: float) -> Operation:
    """The operation that changes one prompt's strength; see `scale`."""
    if not (math.isfinite(strength) and strength >= 0):
        raise SoftPromptError(
            f"a strength of {strength} has no meaning", fix="use 0 or more; 1 is as trained"
        )
    return Operation(
        "scale", lambda parts, lm: scale(parts[0], strength, lm), {"strength": strength}, least=1, most=1
    )


def open_source(text: str | Path) -> Source:
    """`FOLDER`, or `FOLDER:NAME` where it holds several prompts. The longest folder that exists is meant."""
    whole = str(text)
    ends = [len(whole), *(i for i in range(len(whole) - 1, 0, -1) if whole[i] == ":")]
    end = next((i for i in ends if Path(whole[:i]).exists()), len(whole))
    opened = artifacts.load(whole[:end])
    name = whole[end + 1 :] or None
    if name is None and len(opened.prompts) > 1:
        raise SoftPromptError(
            f"{opened.path} holds {len(opened.prompts)} prompts: {', '.join(opened.prompts)}",
            why="which one is meant is not said",
            fix=f"write {opened.path}:{opened.prompts[0]}",
        )
    return Source(opened, opened.prompts[opened.index(name)])


def compose(
    operation: Operation, sources: Sequence[Source], output: str | Path, lm: LanguageModel
) -> Artifact:
    """Make a prompt of the sources and write it as an artifact; template, task and labels are the first's.

    Raises SoftPromptError for sources that do not fit together or on `lm`, and an output that is not empty.
    """
    operation.check(len(sources))
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise SoftPromptError(f"{output} is not empty", fix="choose another folder to write to")
    with torch.no_grad():
        made = operation.make([source.injection(lm) for source in sources], lm)
    return artifacts.save(output, Materialised([made]), lm, manifest(operation, sources, made, output))


def manifest(
    operation: Operation, sources: Sequence[Source], made: Injection, output: Path
) -> dict[str, Any]:
    """What `softprompt.json` says: of the first source what it is used with, and how it was made."""
    first = sources[0].artifact.manifest
    parts = made.channels().values()
    length = sum(part.mask.shape[1] for part in parts)
    soft = sum(part.mask.shape[1] for part in parts if isinstance(part, SoftTokens))
    options = {"operation": operation.name, **operation.numbers, "length": length, "soft_tokens": soft}
    recipe = {
        **first["recipe"],
        "method": {"name": METHOD, **options},
        "data": {**first["recipe"]["data"], "prompt_field": None},  # one prompt: rows need not name it
        "output": str(output),
    }
    return {
        "method": METHOD,
        "options": options,
        "sources": [source.record() for source in sources],
        "prompts": ["default"],
        "labels": first["labels"],
        "base": first["base"],
        "recipe": recipe,
        "data": UNKNOWN_DATA,
        "trained_parameters": 0,
        "dev": UNSCORED,
        **provenance(),
    }
