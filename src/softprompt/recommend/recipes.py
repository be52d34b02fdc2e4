"""Writes recipes that are ready to run for the first methods of a ranking, each checked as a recipe."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._system.files import write_text
from ..config.load import recipe_from_dict
from ..methods import check_options
from . import draft
from .candidates import MethodChoice
from .infer_fields import Guess
from .rank import Ranked, Ranking
from .requirements import Needs

FIRST = 3


def recipe_of(
    candidate: MethodChoice,
    needs: Needs,
    rows: str,
    fields: Guess,
    folder: Path,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the recipe as plain values, without defaults; `settings` by dotted name win."""
    labels = needs.labels if needs.kind == "classification" else ()
    rate = {} if candidate.rate is None else {"lr": candidate.rate}
    most = max(candidate.batch_size, draft.batch_of(needs.kind))
    batch = max(1, min(most, needs.rows // 2))
    recipe: dict[str, Any] = {
        "model": needs.required.model,
        **draft.sections(rows, folder, fields, needs.kind, labels, needs.pooling),
        "method": {"name": candidate.method, **candidate.options},
        "train": {"steps": candidate.steps, "batch_size": batch},
    }
    if candidate.base == "frozen":
        recipe["train"] |= rate
    else:
        recipe["base"] = {"mode": candidate.base, **rate}
    recipe["output"] = os.path.relpath(f"runs/{_stem(candidate)}", folder)
    for key, value in (settings or {}).items():
        section, leaf = key.split(".")
        recipe[section] = {**recipe.get(section, {}), leaf: value}
    return recipe


def write(
    ranking: Ranking,
    needs: Needs,
    rows: str,
    fields: Guess,
    folder: Path,
    *,
    first: int = FIRST,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Path]:
    """Write `1-METHOD.yaml` and so on for the first trained methods; return the paths, the best first.

    `settings` are the best of each method, where they were tried. Raises SoftPromptError where a recipe is
    not valid or its method has no such option.
    """
    written = []
    trained = [item for item in ranking.ranked if item.candidate.is_trained]
    for place, item in enumerate(trained[:first], 1):
        candidate = item.candidate
        path = folder / f"{place}-{_stem(candidate)}.yaml"
        tried = (settings or {}).get(candidate.name)
        recipe = recipe_of(candidate, needs, rows, fields, folder, tried)
        method = recipe_from_dict(recipe, folder).method
        check_options(method.name, method.options())
        write_text(path, draft.text_of(recipe, _head(item, path)))
        written.append(path)
    return written


def _stem(candidate: MethodChoice) -> str:
    return candidate.name.replace("/", "-")


def _head(item: Ranked, path: Path) -> list[str]:
    quoted = shlex.quote(str(path))
    rates = ",".join(f"{rate:.0e}".replace("e-0", "e-") for rate in sorted(rates_of(item.candidate)))
    return [
        f"{item.candidate.name}: {item.candidate.says}",
        f"  softprompt tune {quoted}",
        "",
        *(f"for:      {rule.says}" for rule in item.reasons_for),
        *(f"against:  {rule.says}" for rule in item.reasons_against),
        "",
        "The learning rate decides most; search it first:",
        f"  softprompt search {quoted} --over lr={rates}",
    ]


def rates_of(candidate: MethodChoice) -> list[float]:
    """Return learning rates to try: the method's usual one, three times it, and a third of it."""
    from ..lm.finetune import LEARNING_RATE
    from ..methods import find

    usual = candidate.rate
    if usual is None:
        usual = LEARNING_RATE["lora"] if candidate.base == "lora" else find(candidate.method).lr
    return [float(f"{usual * factor:.1g}") for factor in (1, 3, 1 / 3)]
