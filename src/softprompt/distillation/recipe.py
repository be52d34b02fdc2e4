"""The recipe of a distillation is made here, with soft tokens where a model refuses a prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import methods
from .._system.notes import note
from ..config.schema import Recipe
from ..config.sections.model import KEEP, MethodConfig
from ..errors import SoftPromptError
from ..lm.base import LanguageModel

LR = 2e-2  # of a prefix
SOFT = "prompt-tuning"  # where a model takes no prefix


def recipe_of(settings: Mapping[str, Any], text: str, *, chat: bool) -> dict[str, Any]:
    """Return the tree of a recipe that distils a text; `settings` are merged over it, section by section."""
    tree: dict[str, Any] = {
        "data": {"train": "rows in memory"},
        "template": {"input": "{{ request }}", "target": "{{ answer }}", "chat": chat},
        "task": {"kind": "generation", "objective": "distil", "max_new_tokens": 128},
        "teacher": {"context": text},
        "method": {"name": "prefix-tuning", "length": 64, "placement": "before", "freeze_first": True},
        "train": {"steps": 200, "batch_size": 8, "lr": LR},
        "output": "runs/distilled",
    }
    for key, value in settings.items():
        tree[key] = {**tree[key], **value} if isinstance(value, Mapping) and key in tree else value
    return tree


def check_base(recipe: Recipe) -> None:
    """Raise SoftPromptError for a recipe that trains the base model too."""
    if recipe.base.mode != "frozen":
        raise SoftPromptError(
            f"base.mode={recipe.base.mode} cannot be measured here",
            why="the teacher and the rows without vectors are the base model as it was before training",
            fix="base.mode=frozen; or softprompt tune, on rows that have answers, with task.objective=distil",
        )


def with_keep(recipe: Recipe) -> Recipe:
    """Return the recipe with the share of general text that is the default where a text is distilled."""
    if recipe.train.keep is not None:
        return recipe
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"keep": KEEP})})


def with_one_trained(recipe: Recipe) -> Recipe:
    """Return the recipe without `freeze_first` where that would keep its only vector as it was."""
    options = recipe.method.options()
    if options.get("length") != 1 or not options.get("freeze_first"):
        return recipe
    method = type(recipe.method)(name=recipe.method.name, **{**options, "freeze_first": False})
    return recipe.model_copy(update={"method": method})


def with_fitting_method(recipe: Recipe, lm: LanguageModel) -> Recipe:
    """Return the recipe with soft tokens in place of a prefix where the model refuses one."""
    if "prefix" not in lm.spec.limits:
        return recipe
    reason = lm.spec.limits["prefix"]
    note(f"the vectors are soft tokens ({SOFT}): a {lm.spec.family} model takes no prefix, because {reason}")
    options: dict[str, Any] = {"length": recipe.method.options().get("length", 64), "placement": "before"}
    method = MethodConfig(name=SOFT, **options)
    lr = methods.find(SOFT).lr if recipe.train.lr == LR else recipe.train.lr
    return recipe.model_copy(update={"method": method, "train": recipe.train.model_copy(update={"lr": lr})})
