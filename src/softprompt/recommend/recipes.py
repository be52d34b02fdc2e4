"""Recipes ready to run for the first of a ranking. Each is checked as a recipe before it is written."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from .._system.files import write_text
from .._system.paths import expanded
from ..config.load import recipe_from_dict
from ..methods import check_options
from .candidates import MethodChoice
from .rank import Ranked, Ranking
from .requirements import Needs

FIRST = 3


@dataclass(frozen=True)
class RecipeTask:
    """What the recipes have in common: rows, templates and the column that names prompts."""

    rows: str
    model: str = "smollm2"
    input: str = "{{ input }}"
    target: str = "{{ target }}"
    prompt_field: str | None = None
    choices: str | None = None
    references: str | None = None


def recipe_of(
    candidate: MethodChoice, needs: Needs, task: RecipeTask, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The recipe as plain values, without what is the default anyway; `settings` by dotted name win."""
    data = {"train": task.rows}
    if task.prompt_field is not None:
        data["prompt_field"] = task.prompt_field
    about: dict[str, Any] = {"kind": needs.kind}
    if needs.kind == "classification":
        about["labels"] = sorted(needs.labels)
    if task.choices is not None:
        about["choices"] = task.choices
    if task.references is not None and needs.kind == "generation":
        about["references"] = task.references
    recipe: dict[str, Any] = {
        "model": task.model,
        "data": data,
        "template": {"input": task.input, "target": task.target},
        "task": about,
        "method": {"name": candidate.method, **candidate.options},
    }
    batch = max(1, min(candidate.batch_size, needs.rows // 2))
    rate = {} if candidate.rate is None else {"lr": candidate.rate}
    recipe["train"] = {"steps": candidate.steps, "batch_size": batch}
    if candidate.base != "frozen":
        recipe["base"] = {"mode": candidate.base, **rate}
    else:
        recipe["train"] |= rate
    recipe["output"] = f"runs/{_stem(candidate)}"
    for key, value in (settings or {}).items():
        section, leaf = key.split(".")
        before = recipe.get(section, {})
        recipe[section] = {**before, leaf: value}
    return recipe


def write(
    ranking: Ranking,
    needs: Needs,
    task: RecipeTask,
    folder: Path,
    *,
    first: int = FIRST,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Path]:
    """Write `1-METHOD.yaml` and so on for the first trained ones; the paths, the best first.

    `settings` are those that did best, by candidate, where they were tried.
    """
    written = []
    trained = [item for item in ranking.ranked if item.candidate.is_trained]
    for place, item in enumerate(trained[:first], 1):
        path = folder / f"{place}-{_stem(item.candidate)}.yaml"
        tried = (settings or {}).get(item.candidate.name)
        recipe = recipe_of(item.candidate, needs, _from(task, folder), tried)
        recipe["output"] = os.path.relpath(recipe["output"], folder)
        check(recipe, folder)
        text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100)
        write_text(path, _head(item, path) + text)
        written.append(path)
    return written


def check(recipe: Mapping[str, Any], folder: Path) -> None:
    """Raises SoftPromptError where it is no recipe, or the method has no such option."""
    read = recipe_from_dict(recipe, folder)
    check_options(read.method.name, read.method.options())


def _from(task: RecipeTask, folder: Path) -> RecipeTask:
    """The task with its rows as seen from `folder`, since a recipe's paths belong to its folder."""
    if task.rows.startswith("hf:"):
        return task
    rows = os.path.relpath(expanded(task.rows), folder)
    return replace(task, rows=rows)


def _stem(candidate: MethodChoice) -> str:
    return candidate.name.replace("/", "-")


def _head(item: Ranked, path: Path) -> str:
    command = f"softprompt tune {shlex.quote(str(path))}"
    rates = ",".join(f"{rate:.0e}".replace("e-0", "e-") for rate in sorted(rates_of(item.candidate)))
    lines = [f"{item.candidate.name}: {item.candidate.says}", f"  {command}", ""]
    lines += [f"for:      {rule.says}" for rule in item.reasons_for]
    lines += [f"against:  {rule.says}" for rule in item.reasons_against]
    lines += ["", "The learning rate decides most; search it first:"]
    lines += [f"  softprompt search {shlex.quote(str(path))} --over lr={rates}"]
    return "\n".join(f"# {line}".rstrip() for line in lines) + "\n\n"


def rates_of(candidate: MethodChoice) -> list[float]:
    """Learning rates to try: the method's usual one, three times it, and a third of it."""
    from ..lm.finetune import LEARNING_RATE
    from ..methods import find

    usual = candidate.rate
    if usual is None:
        usual = LEARNING_RATE["lora"] if candidate.base == "lora" else find(candidate.method).lr
    return [float(f"{usual * factor:.1g}") for factor in (1, 3, 1 / 3)]
