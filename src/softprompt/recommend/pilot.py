"""Tries the first methods of a ranking on the rows (`choose --pilot`), by the search of a comparison.

How many methods, learning rates, steps and rows fit the time is planned by timing a step of each kind of
method (`time_budget`, `time_cuts`). The search is that of `softprompt.compare` at equal time: the rates of a
method are trained side by side, all methods for the same seconds, with steps that the comparison plans, and a
method that takes longer than its share is cut off. It looks at the dev rows alone, so the test rows stay new
for a comparison that follows.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..compare.candidates import REFERENCES
from ..compare.experiment import Hooks, compare
from ..compare.records.store import Record
from ..compare.running.executors import Executor
from ..config.load import recipe_from_dict
from ..config.schema import Recipe
from ..data.sources import Row
from ..data.split import limit_rows
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from . import time_budget, time_cuts
from .pilot_answer import PilotAnswer, answer_of
from .pilot_order import PilotTrial, in_order, named_first, trial_of
from .rank import Ranked, Ranking
from .recipes import rates_of

Z95 = 1.96  # standard errors to each side of a 95 % interval
#: What a pilot may have, the most first: methods and learning rates of each, in the order of the ranking.
LEVELS: dict[str, tuple[int, ...]] = {
    "train.steps": (150, 100, 75, 50, 30, 20, 12),
    "rates": (3, 2, 1),
    "methods": (7, 6, 5, 4, 3, 2),
    "data.limit": (400, 200, 100),
}
#: What is lowered by one level, in this order. Under 50 steps the order of the methods is not yet that of
#: longer trials, so methods and rows are given up first.
CUTS = (
    *("train.steps", "train.steps", "rates", "train.steps", "rates", "methods", "methods", "data.limit"),
    *("methods", "methods", "data.limit", "methods", "train.steps", "train.steps", "train.steps"),
)


@dataclass(frozen=True)
class Pilot:
    """A pilot has all trials, and the order of the methods that they give."""

    played: tuple[PilotTrial, ...]
    order: tuple[PilotTrial, ...]  # each method's best trial: the one named, the others by score, the failed
    unplayed: tuple[str, ...]  # methods of the ranking that there was no time for
    lowered: tuple[str, ...]  # what has less than it would with more time, in words
    metric: str
    dev_rows: int
    folder: Path
    seconds: float
    answer: PilotAnswer | None = None  # None of pilots that are put together by hand

    @property
    def unseparated(self) -> tuple[str, ...]:
        """Return the methods whose score may equal the best one (95 %, rows taken as independent)."""
        scored = [trial for trial in self.order if trial.key]
        top = max(scored, key=lambda trial: trial.key[0])
        near = tuple(
            trial.contestant
            for trial in scored
            if top.key[0] - trial.key[0] <= Z95 * math.hypot(top.noise, trial.noise)
        )
        return near if len(near) > 1 else ()

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Return each method's best settings, by dotted name."""
        return {trial.contestant: trial.settings for trial in self.order if trial.key}


def run_pilot(
    plain: Mapping[str, Any],
    ranking: Ranking,
    folder: Path,
    seconds: float,
    *,
    lm: LanguageModel,
    rows: Sequence[Row],
    hooks: Hooks | None = None,
    executor: Executor | None = None,
) -> Pilot:
    """Try the first of the ranking within `seconds`; `plain` is a comparison's recipe for the rows.

    Raises SoftPromptError for rows that a comparison cannot use, a time that is too short for two methods,
    and where every trial failed.
    """
    hooks, began = hooks or Hooks(), time.monotonic()
    names = [item.candidate.name for item in ranking.ranked if item.candidate.is_trained]
    if not names:
        raise SoftPromptError("there is no method left to try", fix="leave --pilot out")
    recipe, lowered = _planned(plain, ranking, lm, rows, seconds, began)
    # the time of earlier calls in this folder is over; what they ran is used again
    within: dict[str, float] = {"within": seconds + _seconds_of(folder)}
    if recipe.compare.budget is not None and (budget := _earlier_budget(folder, recipe)) is not None:
        within["budget"] = budget
    recipe = recipe.model_copy(update={"compare": recipe.compare.model_copy(update=within)})
    records: list[Record] = []

    def keep(record: Record, was_there: bool) -> None:
        records.append(record)
        hooks.on_record(record, was_there)

    compare(
        recipe,
        folder,
        on=executor,
        hooks=replace(hooks, on_record=keep),
        report=False,
        since=began,
        search_only=True,
    )
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    dev_rows = study["rows"]["dev"]
    played = tuple(trial_of(record, study["metric"], dev_rows) for record in records)
    order = in_order(played)
    best = [records[_place(played, trial)] for trial in order if trial.key]
    answered = answer_of(study, best, folder)
    order = named_first(order, answered.method)
    if not any(trial.key for trial in order if trial.contestant not in REFERENCES):
        reason = next((trial.error for trial in played if trial.error), "the time ran out before the first")
        raise SoftPromptError("no trial of the pilot came to an end", why=reason, fix="give it more time")
    reached = {trial.contestant for trial in order}
    unplayed = tuple(name for name in names if name not in reached)
    took = time.monotonic() - began
    metric = study["metric"]
    return Pilot(played, tuple(order), unplayed, lowered, metric, dev_rows, folder, took, answered)


def measured_first(ranking: Ranking, pilot: Pilot) -> Ranking:
    """Return the ranking with the methods that the pilot tried first, in its order, then the others."""
    place = {trial.contestant: number for number, trial in enumerate(pilot.order)}

    def key(item: Ranked) -> int:
        return place.get(item.candidate.name, len(place))

    return replace(ranking, ranked=tuple(sorted(ranking.ranked, key=key)))


def _place(played: Sequence[PilotTrial], trial: PilotTrial) -> int:
    return next(i for i, other in enumerate(played) if other is trial)


def _planned(
    plain: Mapping[str, Any],
    ranking: Ranking,
    lm: LanguageModel,
    rows: Sequence[Row],
    seconds: float,
    began: float,
) -> tuple[Recipe, tuple[str, ...]]:
    """Plan the largest pilot that fits the time; the method with the fastest step comes first."""
    trained = [item.candidate for item in ranking.ranked if item.candidate.is_trained]
    references = [i.candidate.name for i in ranking.ranked if i.candidate.name in REFERENCES]
    most = {"methods": len(trained), "data.limit": len(rows)}
    top = {key: min(values[0], most.get(key, values[0])) for key, values in LEVELS.items()}
    levels = {key: [top[key], *(v for v in values if v < top[key])] for key, values in LEVELS.items()}

    def recipe_of(settings: Mapping[str, int], order: Sequence[str] = ()) -> Recipe:
        tried = trained[: settings["methods"]]
        rates = {c.name: {"rates": rates_of(c)[: settings["rates"]]} for c in tried}
        methods = {name: rates[name] for name in order or rates} | {name: {} for name in references}
        changes = {
            "train": {**plain.get("train", {}), "steps": settings["train.steps"]},
            "compare": {**plain.get("compare", {}), "methods": methods},
        }
        if settings["data.limit"] < len(rows):
            changes["data"] = {**plain["data"], "limit": settings["data.limit"]}
        return recipe_from_dict({**plain, **changes})

    largest = recipe_of({key: values[0] for key, values in levels.items()})
    workers = largest.compare.workers or time_budget.processes(largest)
    shuffled = limit_rows(rows, len(rows), largest.train.seed)
    pace = time_budget.measure(largest, lm, shuffled, workers)

    def at_equal_time(recipe: Recipe) -> Recipe:
        """Divide what the steps of all methods would take equally: the comparison plans the steps of each."""
        compare = recipe.compare.model_copy(update={"budget": pace.equal_share(recipe) or None})
        return recipe.model_copy(update={"compare": compare})

    def seconds_of(settings: Mapping[str, int]) -> float:
        recipe = at_equal_time(recipe_of(settings))
        return pace.seconds(recipe, time_budget.Counts.of(len(rows), recipe), search_only=True)

    used = time.monotonic() - began
    room = time_cuts.SPARE * (seconds - used)
    settings, planned = time_cuts.fit(seconds_of, room, levels, CUTS)
    if planned > room:
        raise time_cuts.too_short("--pilot", seconds, planned, used)
    # a fast method leaves the rest of its share to those after it
    order = sorted(
        (c.name for c in trained[: settings["methods"]]), key=lambda name: pace.step.get(name, 0.0)
    )
    words = {"rates": "learning rate", "train.steps": "step", "data.limit": "row"}
    lowered = (
        f"{'about ' * (key == 'train.steps')}{settings[key]} {word}{'s' * (settings[key] > 1)} "
        f"instead of {levels[key][0]}"
        for key, word in words.items()
        if settings[key] < levels[key][0]
    )
    return at_equal_time(recipe_of(settings, order)), tuple(lowered)


def _seconds_of(folder: Path) -> float:
    """Return the time of earlier calls in the folder."""
    try:
        return float(json.loads((folder / "study.json").read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def _earlier_budget(folder: Path, recipe: Recipe) -> float | None:
    """Return the budget of an earlier pilot of the same methods and rates, whose plan is used again."""
    try:
        earlier = json.loads((folder / "study.json").read_text(encoding="utf-8"))["recipe"]
        now = recipe.to_dict()
        is_same = all(earlier[key] == now[key] for key in ("data", "train", "model"))
        is_same = is_same and earlier["compare"]["methods"] == now["compare"]["methods"]
        return float(earlier["compare"]["budget"]) if is_same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
