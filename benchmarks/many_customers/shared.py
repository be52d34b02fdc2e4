"""It measures what a shared part gains for customers with few rows, beside a prompt that is trained alone.

All ways see each row as often: where one optimizer trains a table of all customers, it takes as many steps as
give the same number of rows. Intervals are over customers, in pairs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from softprompt.config.load import load_recipe
from softprompt.training.prepare import prepare
from softprompt.training.sweep import prepare_prompts
from softprompt.training.tune import tune, tune_many

from . import cut
from .setup import METHOD, Setup, interval, right

FIRST = 100_000  # the number of the first customer with few rows: none of those in the folder
TABLE_ROWS = 32  # rows a step, of a table

#: What each way changes in the recipe, and the way of the same vectors that is trained alone.
SOFT = {"placement": "after", "length": 8}
WAYS: dict[str, tuple[dict[str, Any], str | None]] = {
    "prefix, alone": ({}, None),
    "prefix, nearest": ({"init": "nearest"}, "prefix, alone"),
    "prefix, generated": ({"name": "generated-prefix"}, "prefix, alone"),
    "prompt, alone": ({"name": "prompt-tuning", **SOFT}, None),
    "prompt, multitask": ({"name": "multitask-prompt-tuning", **SOFT}, "prompt, alone"),
}
TABLES = ("prefix, generated", "prompt, multitask")


def shared(setup: Setup) -> dict[str, Any]:
    """Train customers of few rows in each way, and compare the accuracy on their test rows."""
    rows, tasks = setup.out / "few", cut.tasks_in(setup.data)
    numbers = range(FIRST, FIRST + setup.few)
    cut.write(rows, [cut.customer(tasks, i, setup.seed, setup.few_rows) for i in numbers])
    held, scores = setup.held(rows), dict[str, list[float]]()
    for way in WAYS:
        folder = _trained(setup, way, rows)
        scores[way] = []
        for name, test in held.items():
            place, prompt = (folder, name) if way in TABLES else (folder / name, None)
            answers = right(setup, place, test, prompt)
            scores[way].append(sum(answers) / len(answers))
    gains = {
        way: interval([a - b for a, b in zip(scores[way], scores[than], strict=True)]) | {"than": than}
        for way, (_, than) in WAYS.items()
        if than is not None
    }
    return {
        "customers": list(held),
        "accuracy": {way: interval(values) for way, values in scores.items()},
        "gains": gains,
        "scores": scores,
    }


def _trained(setup: Setup, way: str, rows: Path) -> Path:
    """Train all customers in one way, or resume; return the folder."""
    changes = {**METHOD, **WAYS[way][0]}
    if changes.get("init") == "nearest":
        changes["artifact"] = str(setup.prompts.resolve())
    folder = setup.out / f"few {way}".replace(", ", "-").replace(" ", "-")
    training: dict[str, Any] = {"lr": setup.lr if changes["name"] == METHOD["name"] else None}
    if way in TABLES:
        steps = max(2, setup.steps * setup.batch * setup.few // TABLE_ROWS)
        training |= {"apart": False, "steps": steps, "batch_size": TABLE_ROWS, "eval_every": -(-steps // 3)}
    recipe = load_recipe(setup.recipe(rows, folder, method=changes, train=training), [])
    if way in TABLES:
        tune(prepare(recipe, lm=setup.lm()))
    else:
        tune_many(prepare_prompts(recipe, lm=setup.lm()))
    return folder
