"""Tuned prompts are composed here: concatenated, averaged or scaled, with a record of their sources.

The result is a folder like any other, whose manifest names its sources and their hashes. `arithmetic` defines
the operations; nothing here trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from .hub.reference import is_reference, split_prompt
from .manifest import BASE, UNKNOWN_DATA, UNSCORED, VECTORS
from .sinks import STARTS, one_sink, starts_with_sink

METHOD = "composition"  # what an artifact's manifest calls its method


@dataclass(frozen=True, slots=True)
class Source:
    """A prompt that belongs to an artifact."""

    artifact: Artifact
    prompt: str

    def injection(self, lm: LanguageModel) -> Injection:
        """Return its vectors, one row.

        Raises SoftPromptError where they are not fixed, or `lm` is not its base.
        """
        base = self.artifact.manifest["base"]
        if base["mode"] != "frozen" or BASE in self.artifact.manifest["files"]:
            raise SoftPromptError(
                f"{self.artifact} was trained together with its base ({base['mode']}) or a head",
                why="its vectors belong to weights that the others do not share",
                fix="compose prompts that were trained with base=frozen",
            )
        method = self.artifact.method(lm)
        if not isinstance(method, Materialised):
            raise SoftPromptError(
                f"{self.artifact} generates its prompts from the input",
                why="it holds no fixed vectors",
                fix="compose static prompts or prefixes",
            )
        injection = method.prompts[self.artifact.index(self.prompt)]
        if not injection.channels():
            raise SoftPromptError(
                f"{self.artifact} injects nothing", why="its method is 'none'", fix="leave it out"
            )
        return injection

    @property
    def has_sink(self) -> bool:
        """Return whether the prompt starts with the attention sink (see `sinks`)."""
        return starts_with_sink(self.artifact.manifest["options"])

    def used_as(self, other: Source) -> bool:
        """Tell whether both were trained with the same template, for the same task and labels."""
        ours, theirs = self.artifact.manifest, other.artifact.manifest
        same = all(ours["recipe"][section] == theirs["recipe"][section] for section in ("template", "task"))
        return same and ours["labels"] == theirs["labels"]

    def record(self) -> dict[str, str]:
        """Return the source's entry in the manifest of the result."""
        manifest = self.artifact.manifest
        return {
            "folder": str(self.artifact),
            "prompt": self.prompt,
            "method": manifest["method"],
            "sha256": manifest["files"][VECTORS]["sha256"],
        }


@dataclass(frozen=True, slots=True)
class Operation:
    """A function of prompts that has a name and numbers for the manifest."""

    name: str
    make: Callable[[Sequence[Injection], LanguageModel], Injection]
    numbers: Mapping[str, float]
    least: int  # how many prompts it takes
    most: int | None = None
    one_sink: bool = False  # whether all but one attention sink are dropped first

    def check(self, count: int) -> None:
        """Raise SoftPromptError where it does not take `count` prompts."""
        if count < self.least or (self.most is not None and count > self.most):
            wanted = f"{self.least} prompts or more" if self.most is None else "one prompt"
            raise SoftPromptError(f"{self.name} takes {wanted}, not {count}", fix=f"give {wanted}")


AVERAGE = Operation("average", average, {}, least=2)


def concatenating(*, keep_sinks: bool = False, keep_positions: bool = False) -> Operation:
    """Return the operation that joins prompts in order; see `concatenate` and `sinks`.

    `keep_sinks` keeps every first column, and `keep_positions` leaves all keys where they are. Both are for
    comparing.
    """
    switches = {"keep_sinks": keep_sinks, "keep_positions": keep_positions}
    return Operation(
        "concatenate",
        partial(concatenate, keep_positions=keep_positions),
        {name: value for name, value in switches.items() if value},
        least=2,
        one_sink=not keep_sinks,
    )


CONCATENATE = concatenating()


def scaling(strength: float) -> Operation:
    """Return the operation that changes one prompt's strength; see `scale`."""
    if not (math.isfinite(strength) and strength >= 0):
        raise SoftPromptError(
            f"a strength of {strength} has no meaning", fix="use 0 or more; 1 is as trained"
        )
    return Operation(
        "scale", lambda parts, lm: scale(parts[0], strength, lm), {"strength": strength}, least=1, most=1
    )


def open_source(text: str | Path) -> Source:
    """Open `FOLDER`, or `FOLDER:NAME` where it holds several prompts; `hf:ID[@REVISION][:NAME]` is the same.

    The longest path that exists is the folder.
    """
    folder, name = split_prompt(str(text)) if is_reference(text) else _split(str(text))
    opened = artifacts.load(folder)
    if name is None and len(opened.prompts) > 1:
        raise SoftPromptError(
            f"{opened} holds {len(opened.prompts)} prompts: {', '.join(opened.prompts)}",
            why="no name was given to choose among them",
            fix=f"write {opened}:{opened.prompts[0]}",
        )
    return Source(opened, opened.prompts[opened.index(name)])


def _split(whole: str) -> tuple[str, str | None]:
    ends = [len(whole), *(i for i in range(len(whole) - 1, 0, -1) if whole[i] == ":")]
    end = next((i for i in ends if Path(whole[:i]).exists()), len(whole))
    return whole[:end], whole[end + 1 :] or None


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
        parts = [source.injection(lm) for source in sources]
        if operation.one_sink:
            parts = one_sink(parts, [source.has_sink for source in sources])
        result = operation.make(parts, lm)
    return artifacts.save(output, Materialised([result]), lm, manifest(operation, sources, result, output))


def manifest(
    operation: Operation, sources: Sequence[Source], result: Injection, output: Path
) -> dict[str, Any]:
    """Return the manifest: the first source's template, task and base, and the operation."""
    first = sources[0].artifact.manifest
    parts = result.channels().values()
    length = sum(part.mask.shape[1] for part in parts)
    soft = sum(part.mask.shape[1] for part in parts if isinstance(part, SoftTokens))
    options = {"operation": operation.name, **operation.numbers, "length": length, "soft_tokens": soft}
    if sources[0].has_sink:
        options[STARTS] = True
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
