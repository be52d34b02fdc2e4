"""Loads a frozen base model once a process, and one that training changes once a trial."""

from __future__ import annotations

from ...artifacts.artifact import Artifact
from ...build import saved_base
from ...config.schema import Recipe
from ...lm.base import LanguageModel
from ...lm.from_recipe import load_base

_kept: dict[str, LanguageModel] = {}  # by name, precision and weights; one at most


def frozen_base(recipe: Recipe) -> LanguageModel | None:
    """Return the recipe's base, which trials share; None if training changes it and it cannot be shared."""
    if recipe.base.mode != "frozen" or recipe.task.needs_head:
        return None
    return kept(recipe)


def kept(recipe: Recipe) -> LanguageModel:
    """Return the base as it is before any training."""
    model = recipe.to_dict()["model"]
    weights = recipe.train.weights
    names = [f"{model} {recipe.train.precision} {weights}"]
    if names[0] not in _kept:
        _kept.clear()  # memory holds one model, and room for what trains
        lm = load_base(recipe)
        # `auto` is one of the others
        for dtype in (recipe.train.precision, str(lm.dtype).removeprefix("torch.")):
            _kept[f"{model} {dtype} {weights}"] = lm
    return _kept[names[0]]


def base_of(artifact: Artifact, recipe: Recipe) -> LanguageModel:
    """Return a base for a tuned prompt: the shared one, or a new one with the weights that were trained."""
    return frozen_base(recipe) or saved_base(artifact)


def forget() -> None:
    """Free the memory that the model uses."""
    _kept.clear()
