"""Measures how long the work of one method takes on its rows: a step of its search, a step alone, its caches.

Steps are timed by the training loop itself (`training.step_timing`), and nothing that is trained changes.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...config.load import recipe_from_dict
from ...config.schema import Recipe
from ...training.estimate import cache_builds, evaluating
from ...training.prepare import Prepared, prepare
from ...training.step_timing import REPEATS, round_seconds, step_seconds, typical_batch
from ...training.sweep import prepare_settings
from ...training.tune import optimization
from ..records.pace import CachePace, Pace, Stage
from .model_pool import forget, frozen_base


def measure(stages: Sequence[Stage], more: int = 0, *, evaluates: bool = False) -> Pace:
    """Time the steps of all stages; `more` trials have the pace of the first stage.

    Raises what preparing and training raise.
    """
    recipes = [[recipe_from_dict(each) for each in stage.recipes] for stage in stages]
    lm = frozen_base(recipes[0][0])
    if lm is None:
        return _alone(recipes, stages, more, evaluates)
    search, first = 0.0, None
    for group, stage in zip(recipes, stages, strict=True):
        copies = [
            recipe.model_copy(update={"output": f"{recipe.output}-{number}"})
            for number, recipe in enumerate(group * stage.times)
        ]
        runs = prepare_settings(copies, lm=lm) if len(copies) > 1 else [prepare(copies[0], lm=lm)]
        seconds = side_by_side(runs)
        search += seconds
        if first is None:
            search += seconds / len(runs) * more
            first = runs[0]
    assert first is not None
    return pace_of(first, search, evaluates=evaluates)


def _alone(recipes: Sequence[Sequence[Recipe]], stages: Sequence[Stage], more: int, evaluates: bool) -> Pace:
    """Time trials that train the base, each with a base of its own."""
    result, search = None, 0.0
    for group, stage in zip(recipes, stages, strict=True):
        for recipe in group:
            forget()  # a second base would count as memory of the first
            gc.collect()
            prepared = prepare(recipe)
            if result is None:
                result = pace_of(prepared, 0.0, evaluates=evaluates)
                search += result.step * (stage.times + more)
            else:
                search += step_seconds(prepared, _typical(prepared)) * stage.times
            del prepared
    assert result is not None
    return replace(result, search=search)


def side_by_side(runs: Sequence[Prepared], repeats: int = REPEATS) -> float:
    """Time one step of each run, on a batch of mean size, as the trials of a search take them."""
    return round_seconds([replace(run, train=_typical(run)) for run in runs], repeats)


def pace_of(prepared: Prepared, search: float, *, evaluates: bool = False, repeats: int = REPEATS) -> Pace:
    """Return the pace of a run whose search takes `search` seconds a step."""
    batch = _typical(prepared)
    inputs = {tuple(example.input_ids) for example in prepared.train}
    caches = tuple(
        CachePace(build.token_seconds * build.tokens_of(prepared.train) / len(prepared.train), build.folder)
        for build in cache_builds(prepared, batch)
    )
    step = step_seconds(prepared, batch, repeats)
    evaluation = evaluating(prepared)[0] if evaluates else 0.0
    return Pace(step, search, caches, len(inputs), len(batch), evaluation)


def _typical(prepared: Prepared) -> list[Any]:
    return typical_batch(prepared.train, optimization(prepared.recipe))
