"""Runs are prepared to go side by side over one base model: settings of a recipe, or prompts of a file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from .._system.open_files import allow
from .._system.world import ALONE, World
from ..config.schema import Recipe
from ..data.recipe_rows import read_split
from ..data.sources import Row, read_rows
from ..data.spelling import distinct, same_form
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..methods.base import SoftPrompt
from .prepare import Prepared, prepare

Rows = Iterable[Mapping[str, Any]]


def prepare_settings(
    recipes: Sequence[Recipe],
    *,
    lm: LanguageModel | None = None,
    rows: Rows | None = None,
    dev_rows: Rows | None = None,
    module: SoftPrompt | None = None,
    before_loading: Callable[[Sequence[Recipe]], None] = lambda recipes: None,
    world: World = ALONE,
) -> list[Prepared]:
    """Prepare one run a recipe, over one model in memory; `rows` and `dev_rows` replace the recipes' files.

    Without dev rows, all runs use those of the first recipe's seed: scores on different rows could not be
    compared. `before_loading` is called before rows are read and the model is loaded.

    Raises SoftPromptError where they ask for different models, or change the model that they share.
    """
    first = recipes[0]
    for recipe in recipes:
        _check_base(recipe)
        bases = [f"{_base_of(r)} ({_precision_of(r)})" for r in (first, recipe)]
        if bases[0] != bases[1]:
            raise SoftPromptError(
                "runs side by side share one base model",
                why=f"one setting asks for {bases[0]}, another for {bases[1]}",
                fix="give all the same model, train.dtype and train.weights, or run them one after the other",
            )
    _check_outputs([recipe.output for recipe in recipes])
    before_loading(recipes)
    parts = (("train", rows, first.data.limit), ("dev", dev_rows, None))
    given = [
        None if part is None else read_rows(part, split=split, first=limit) for split, part, limit in parts
    ]
    runs: list[Prepared] = []
    for recipe in recipes:
        seeded = recipe.train.model_copy(update={"seed": first.train.seed})
        train, dev = read_split(recipe.model_copy(update={"train": seeded}), *given)
        model = runs[0].lm if runs else lm
        runs.append(prepare(recipe, lm=model, rows=train, dev_rows=dev, module=module, world=world))
    return runs


def _precision_of(recipe: Recipe) -> str:
    weights = recipe.train.weights
    return f"train.dtype={recipe.train.dtype}" + ("" if weights == "auto" else f", train.weights={weights}")


def _base_of(recipe: Recipe) -> str:
    model = recipe.to_dict()["model"]
    return f"'{model}'" if isinstance(model, str) else str(model)


def settings(over: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """List every combination of the values of some keys."""
    return [dict(zip(over, values, strict=True)) for values in product(*over.values())]


def name_of(setting: Mapping[str, Any]) -> str:
    """Write a setting in one line, which also names its folder."""
    return ",".join(f"{key}={value}" for key, value in setting.items())


def prepare_prompts(
    recipe: Recipe,
    *,
    lm: LanguageModel | None = None,
    before_loading: Callable[[Sequence[Recipe]], None] = lambda recipes: None,
    world: World = ALONE,
) -> list[Prepared]:
    """Prepare one run for each prompt that `data.prompt_field` names, on that prompt's rows alone.

    Each run is saved in its own folder in the recipe's output folder. `before_loading` is called with their
    recipes once the rows are read. Raises SoftPromptError where a prompt
    has no dev rows.
    """
    field = recipe.data.prompt_field
    if field is None:
        raise SoftPromptError(
            "train.apart=true trains each prompt alone, but the rows name no prompts",
            fix="data.prompt_field=COLUMN, the column that names each row's prompt",
        )
    _check_base(recipe)
    # data.dev_limit is of each prompt, whose run applies it: of all together it would leave most without rows
    whole = recipe.data.model_copy(update={"dev_limit": None})
    train, dev = read_split(recipe.model_copy(update={"data": whole}))
    names = distinct(str(row[field]) for row in train if row.get(field) not in (None, ""))
    outputs = [str(Path(recipe.output) / _folder_name(name)) for name in names]
    _check_outputs(outputs)
    recipes = [recipe.model_copy(update={"output": output}) for output in outputs]
    before_loading(recipes)
    by_prompt = [_by_prompt(rows, field) for rows in (train, dev)]
    runs: list[Prepared] = []
    for name, alone in zip(names, recipes, strict=True):
        training, held = (rows.get(same_form(name), []) for rows in by_prompt)
        if not held:
            raise SoftPromptError(
                f"prompt '{name}' has no dev rows",
                why=f"it has {len(training)} rows to train on, and each prompt is measured alone",
                fix="give data.dev with rows of every prompt, or a larger data.dev_fraction",
            )
        first = runs[0] if runs else None
        base = first.lm if first else lm
        runs.append(prepare(alone, lm=base, rows=training, dev_rows=held, world=world, beside=first))
    return runs


def _by_prompt(rows: Iterable[Row], field: str) -> dict[str, list[Row]]:
    """Group the rows by the prompt that they name, by the form that all spellings of its name share."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(same_form(str(row.get(field))), []).append(row)
    return groups


def _check_base(recipe: Recipe) -> None:
    changes = f"base={recipe.base.mode} trains" if recipe.base.mode != "frozen" else ""
    if recipe.task.needs_head:
        changes = "the task's head is a part of"
    if recipe.train.shard:
        changes = "train.shard=true splits"
    if changes:
        raise SoftPromptError(
            "these runs cannot go side by side",
            why=f"{changes} the base model, which they share",
            fix="run them one after the other, or leave the base frozen",
        )


def _check_outputs(outputs: Sequence[str]) -> None:
    allow(2 * len(outputs))  # a lock and a journal each
    places = Counter(str(Path(output).resolve()) for output in outputs)
    if twice := sorted(place for place, count in places.items() if count > 1):
        raise SoftPromptError(
            f"several runs would be saved in {twice[0]}", fix="give each an output folder of its own"
        )


def _folder_name(name: str) -> str:
    """Turn a prompt's name into the name of a folder: other characters become underscores."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "_"
