"""Base models of one process: a frozen one is loaded once for all trials, a trained one anew for each."""

from __future__ import annotations

from ..artifacts.artifact import Artifact
from ..build import load_base, saved_base
from ..config.schema import Recipe
from ..lm.base import LanguageModel

_kept: dict[str, LanguageModel] = {}  # by name and precision; one at most


def frozen_base(recipe: Recipe) -> LanguageModel | None:
    """The recipe's base, which trials may share; None where training changes it: then each loads its own."""
    if recipe.base.mode != "frozen" or recipe.task.needs_head:
        return None
    return kept(recipe)


def kept(recipe: Recipe) -> LanguageModel:
    """The base as it is before any training."""
    names = [f"{recipe.model} {recipe.train.dtype}"]
    if names[0] not in _kept:
        _kept.clear()  # memory holds one model, and room for what trains
        lm = load_base(recipe)
        # `auto` came out as one of the others
        for dtype in (recipe.train.dtype, str(lm.dtype).removeprefix("torch.")):
            _kept[f"{recipe.model} {dtype}"] = lm
    return _kept[names[0]]


def base_of(artifact: Artifact, recipe: Recipe) -> LanguageModel:
    """A base for a tuned prompt: the shared one, or one of its own that its weights may be loaded into."""
    return frozen_base(recipe) or saved_base(artifact)


def forget() -> None:
    """Free the memory."""
    _kept.clear()
