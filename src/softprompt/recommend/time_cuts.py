"""Cuts a comparison so that it fits a time; what is cut first is what shows least."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .._system.progress import duration
from ..compare.candidates import candidates_of
from ..config.schema import Recipe
from ..errors import SoftPromptError

SPARE = 0.8  # of the time that is planned for: a machine may become busier
RATES = ([1e-3, 3e-3, 1e-2, 3e-2], [3e-3, 1e-2, 3e-2], [3e-3, 1e-2], [1e-2])
BASE_RATES = ([1e-4, 3e-4, 1e-3, 3e-3], [3e-4, 1e-3, 3e-3], [3e-4, 1e-3], [1e-3])
#: The methods that are left out first, one after another.
DISPENSABLE = ("lora", "prompt-tuning/before", "few-shot", "prefix-tuning/before")
#: What a comparison may have, the most first.
LEVELS: dict[str, tuple[Any, ...]] = {
    "train.steps": (150, 100, 75, 50, 30, 20, 12),
    "compare.rates": RATES,
    "compare.seeds": (3, 2, 1),
    "compare.control": (True, False),
    "compare.text_rows": (24, 12, 6),
    "compare.test_limit": (200, 100, 50, 25),
    "data.limit": (400, 200, 100, 60, 40),
    "compare.methods": (0, 1, 2, 3, 4),  # how many of those that are dispensable are left out
}
#: What is lowered by one level, in this order.
CUTS = (
    *("train.steps", "train.steps", "train.steps", "compare.rates", "train.steps", "compare.rates"),
    *("compare.control", "compare.text_rows", "compare.test_limit", "compare.seeds", "data.limit"),
    *("compare.methods", "train.steps", "compare.methods", "data.limit", "compare.test_limit"),
    *("compare.seeds", "compare.methods", "compare.text_rows", "data.limit", "compare.rates"),
    *("compare.methods", "compare.test_limit", "train.steps", "data.limit"),
)


def fit(
    seconds_of: Callable[[dict[str, Any]], float],
    within: float,
    levels: Mapping[str, Sequence[Any]],
    cuts: Sequence[str] = CUTS,
) -> tuple[dict[str, Any], float]:
    """Return the settings (by dotted name) that end `within` seconds, cut as little as needed, and their
    time.

    `levels` lists the values of each setting, the most costly first. Where no settings fit, the cheapest are
    returned.
    """
    at = dict.fromkeys(levels, 0)

    def settings() -> dict[str, Any]:
        return {key: values[at[key]] for key, values in levels.items()}

    seconds, cut = seconds_of(settings()), []
    for key in cuts:
        if seconds <= within:
            break
        if key in at and at[key] + 1 < len(levels[key]):
            at[key] += 1
            cut.append(key)
            seconds = seconds_of(settings())
    for key in reversed(cut):  # the last cut may have made room for an earlier one
        at[key] -= 1
        more = seconds_of(settings())
        if more <= within:
            seconds = more
        else:
            at[key] += 1
    return settings(), seconds


def too_short(option: str, within: float, seconds: float, used: float) -> SoftPromptError:
    """Return the error for a time that is less than the least that can be planned, which takes `seconds`."""
    enough = math.ceil((1.25 * seconds / SPARE + used) / 60)  # with room for a machine that is busier then
    return SoftPromptError(
        f"{duration(within)} are too short to compare methods on these rows",
        why=f"the least that compares anything takes about {duration(seconds + used)} on this machine",
        fix=f"{option} {enough}m, fewer or shorter rows, or fewer settings of your own on the command line",
    )


def less(recipe: Recipe) -> list[str]:
    """Return overrides that make a comparison shorter: each lowers what is there."""
    changes = []
    if recipe.compare.budget is not None:
        changes.append(f"budget={recipe.compare.budget / 2:g}s")
    elif recipe.train.steps > 1:
        changes.append(f"steps={max(1, recipe.train.steps // 2)}")
    if recipe.compare.seeds > 1:
        changes.append(f"seeds={recipe.compare.seeds - 1}")
    if len(recipe.compare.rates) > 1:
        changes.append(f"'rates=[{', '.join(f'{rate:g}' for rate in recipe.compare.rates[1:])}]'")
    who = [item.name for item in candidates_of(recipe)]
    if len(who) > 2:
        changes.append(f"'methods=[{', '.join(who[:2])}]'")
    return changes


def spelt(settings: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Return a plan's settings as a recipe has them: rates in pairs, methods by name."""
    result = dict(settings)
    given = recipe.compare.model_fields_set
    if "compare.rates" in result and "base_rates" not in given:
        result["compare.base_rates"] = BASE_RATES[RATES.index(result["compare.rates"])]
    if "compare.control" in result and "serving" not in given:
        result["compare.serving"] = result["compare.control"]
    if "compare.methods" in result:
        out = DISPENSABLE[: result["compare.methods"]]
        result["compare.methods"] = [name for name in recipe.compare.methods or () if name not in out]
    return result


def is_no_limit(key: str, value: Any, rows: int) -> bool:
    """Return whether a limit of rows is as large as the rows that there are."""
    return key in ("data.limit", "compare.test_limit") and value >= rows


def shown(
    settings: Mapping[str, Any], levels: Mapping[str, Sequence[Any]], recipe: Recipe, rows: int
) -> Iterator[str]:
    """Name what is less than in a comparison without a time limit."""
    for key, value in settings.items():
        most = levels[key][0]
        if value == most or is_no_limit(key, value, rows):
            continue
        if key == "compare.methods":
            gone = [n for n in DISPENSABLE[:value] if n in (recipe.compare.methods or ())]
            if gone:
                yield f"without {', '.join(gone)} (compare.methods)"
        elif key == "compare.control":
            yield "control and serving are not measured (compare.control, compare.serving)"
        elif isinstance(value, list):
            yield f"{len(value)} learning rates instead of {len(most)} ({key})"
        else:
            yield f"{key.split('.')[-1].replace('_', ' ')}: {value} instead of {most} ({key})"
