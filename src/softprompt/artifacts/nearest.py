"""The prompt whose training inputs are most like the new ones (`init=nearest`).

A prompt's inputs are described by one vector: the mean, over its training rows, of the mean embedding of a
row's input tokens under the frozen base. It needs no pass through the model. Every tuned prompt keeps it in
its manifest. Vectors are compared by cosine, after the mean of all candidates is taken off: what all inputs
have in common (the template's words) says nothing of which are alike.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config.identity import base_differs
from ..config.schema import Recipe
from ..data.example import Example
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from . import manifest as manifests
from .hub.download import folder_of
from .manifest import MANIFEST, VECTORS

INPUTS = "inputs"  # in the manifest's `data`: by prompt, float16 numbers as base64
TOKENS = 4096  # that are embedded at a time


@dataclass(frozen=True, slots=True)
class Nearest:
    """A prompt of an artifact, and how alike its inputs are to those of the prompt that starts from it."""

    artifact: str  # its folder
    prompt: str
    similarity: float  # a cosine

    def __str__(self) -> str:
        return f"'{self.prompt}' of {self.artifact} (cosine of the inputs {self.similarity:.2f})"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt that another may start from."""

    folder: Path
    prompt: str
    mean: Tensor  # [H], of its inputs


def mean_inputs(lm: LanguageModel, prompts: Sequence[str], examples: Sequence[Example]) -> dict[str, Tensor]:
    """Return the mean input [H] of each prompt that has rows among the examples, by name."""
    inputs: dict[str, list[Sequence[int]]] = {}
    for example in examples:
        if example.input_ids:
            inputs.setdefault(prompts[example.prompt], []).append(example.input_ids)
    return {name: mean_input(lm, rows) for name, rows in inputs.items()}


@torch.no_grad()
def mean_input(lm: LanguageModel, inputs: Sequence[Sequence[int]]) -> Tensor:
    """Return the mean [H] over rows of the mean embedding of a row's tokens, in float32 on the CPU."""
    lengths = np.array([len(ids) for ids in inputs])
    flat = np.fromiter(chain.from_iterable(inputs), dtype=np.int64, count=lengths.sum())
    weights = torch.from_numpy(np.bincount(flat, np.repeat(1 / lengths / len(inputs), lengths))).float()
    total = torch.zeros(lm.spec.hidden_size)
    for part in weights.nonzero()[:, 0].split(TOKENS):
        total += weights[part] @ lm.embed(part.to(lm.device)).float().cpu()
    return total


def written(means: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the means [H] of a table's prompts as a manifest holds them."""
    numbers = {name: mean.numpy().astype("<f2").tobytes() for name, mean in means.items()}
    return {name: base64.b64encode(data).decode("ascii") for name, data in numbers.items()}


def candidates_in(recipe: Recipe, base: Mapping[str, str]) -> list[Candidate]:
    """List the prompts of the recipe's method and of one base in the folder that `method.artifact` names.

    The folder holds artifacts, or is one. Raises SoftPromptError where there is none to choose from.
    """
    folder, method = str(recipe.method.options().get("artifact") or ""), recipe.method.name
    if not folder or not (place := folder_of(folder)[0]).is_dir():
        raise SoftPromptError(
            f"init=nearest finds no folder {folder}".rstrip(),
            why="it chooses among the tuned prompts in a folder",
            fix="method.artifact=FOLDER, which holds prompts that were tuned with the same method and model",
        )
    known = [each for file in sorted(place.rglob(MANIFEST)) for each in _candidates(file, method, base)]
    if not known:
        raise SoftPromptError(
            f"init=nearest has no prompt to start from in {folder}",
            why=f"it takes prompts of {method} that were trained on this base model and describe their "
            "inputs, as this version writes them",
            fix="name another method.artifact=FOLDER, or leave method.init and method.artifact out",
        )
    return known


def nearest(
    candidates: Sequence[Candidate], means: Mapping[str, Tensor], without: Path
) -> dict[str, Nearest]:
    """Choose the nearest candidate for each of `means`, by name. One in `without`, the run's own, is skipped.

    Raises SoftPromptError where no other is left.
    """
    known = [each for each in candidates if each.folder.resolve() != without.resolve()]
    if not known:
        raise SoftPromptError(
            f"init=nearest has no prompt to start from but {without}",
            why="that is the folder which this run writes",
            fix="name another method.artifact=FOLDER, or leave method.init and method.artifact out",
        )
    vectors = torch.stack([each.mean for each in known])
    centre = vectors.mean(0) if len(known) > 1 else torch.zeros(vectors.shape[1])
    chosen = {}
    for name, mean in means.items():
        cosines = torch.cosine_similarity(vectors - centre, (mean - centre)[None])
        best = int(cosines.argmax())
        chosen[name] = Nearest(str(known[best].folder), known[best].prompt, float(cosines[best]))
    return chosen


def _candidates(file: Path, method: str, base: Mapping[str, str]) -> Iterator[Candidate]:
    """Yield the prompts of an artifact that may be started from."""
    try:
        manifest = manifests.read(file)
    except SoftPromptError:  # half written, or damaged: others may do
        return
    saved = manifest["base"]["fingerprint"]
    chat = bool((manifest["recipe"].get("template") or {}).get("chat"))
    if manifest["method"] != method or VECTORS not in manifest["files"]:
        return
    if base_differs(saved, base, chat=chat):
        return
    for name in manifest["prompts"]:
        if (mean := _read(manifest["data"].get(INPUTS), name)) is not None:
            yield Candidate(file.parent, name, mean)


def _read(written: Any, name: str) -> Tensor | None:
    """Return the mean of a prompt's inputs, or None where the manifest holds none that can be used."""
    text = written.get(name) if isinstance(written, dict) else None
    if not isinstance(text, str):
        return None
    try:
        numbers = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2")
    except (binascii.Error, ValueError):
        return None
    vector = torch.from_numpy(numbers.astype(np.float32))
    return vector if bool(vector.isfinite().all()) else None
