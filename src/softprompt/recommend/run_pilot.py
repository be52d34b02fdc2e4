"""`--pilot`: from rows and a ranking to what a pilot within a time measured of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..compare import splits
from ..compare.candidates import REFERENCES, contestants
from ..compare.model_pool import kept
from ..compare.store import Folder
from ..config.load import recipe_from_dict
from ..config.schema import Recipe
from ..errors import SoftPromptError
from ..evaluation.metrics import METRICS
from .pilot_runner import Here, Player, Work, field_of
from .rank import Ranked, Ranking
from .successive_halving import Pilot, Played, Scored, in_order, pilot, rungs_of, shares

OTHERS = ("zero-shot", "few-shot")


@dataclass(frozen=True)
class Tried:
    """What came of it."""

    pilot: Pilot
    folder: Path
    dev_rows: int
    metric: str

    def shown(self, score: float) -> float:
        """A trial's score as the metric has it: a pilot's are turned so that more is better."""
        return score if METRICS[self.metric].higher_is_better else -score

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Each contestant's best, by dotted name."""
        return {
            trial.contestant: dict(trial.settings) for trial in self.pilot.order if trial.score > -math.inf
        }


def try_out(
    plain: dict[str, Any],
    ranking: Ranking,
    folder: Path,
    seconds: float,
    *,
    say: Callable[[str], None] = lambda text: None,
    work: Work | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Tried:
    """Play the first of the ranking within `seconds`; `plain` is a comparison's recipe.

    Raises SoftPromptError for rows that will not do, or a time in which no trial ends.
    """
    started, place = clock(), Folder(folder)
    named = [item.contestant.name for item in ranking.ranked]
    others = [name for name in OTHERS if name in named]
    methods = [name for name in named if name not in REFERENCES]
    if not methods:
        raise SoftPromptError("there is no method left to try", fix="leave --pilot out")
    recipe = recipe_from_dict(plain)
    recipe = _asking(recipe, methods=[*methods, *others])
    laid = _lay(recipe, place, len(methods))
    player = Player(recipe, place, laid, work or Here(place), clock, say)
    references = [_reference(player, name, laid.counts["train"]) for name in others]
    rates = {one.name: one.rate for one in contestants(recipe) if not one.is_reference}

    def left() -> float:
        return seconds - (clock() - started)

    if left() <= 0:
        raise SoftPromptError(
            "the pilot's time ran out before the first training",
            why=f"{clock() - started:.0f} seconds went into the plain model's answers",
            fix="give it more time",
        )
    rows = laid.counts["train"]
    field, first = field_of(ranking, rates, player, rows, left)
    found = pilot(player, field, rows=rows, seconds=left(), first=first, clock=clock)
    # they play no rungs, since they learn nothing: their score stands beside the finalists'
    last = max(trial.rung for trial in found.played)
    played = (*found.played, *(replace(one, rung=last) for one in references))
    found = replace(found, played=played, order=tuple(in_order(played)), seconds=clock() - started)
    return Tried(found, folder, laid.counts["dev"], laid.metrics[0])


def _reference(player: Player, name: str, rows: int) -> Played:
    started = player.clock()
    try:
        made, error = player.reference(name), ""
    except SoftPromptError as failure:
        made, error = Scored(-math.inf), failure.what
        player.say(f"  {name}  failed: {error}")
    return Played(name, {}, 0, rows, 0, player.clock() - started, made.value, error, made.noise)


def measured_first(ranking: Ranking, found: Pilot) -> Ranking:
    """Those that the pilot played, as it ranked them, then the others as they were."""
    place = {trial.contestant: number for number, trial in enumerate(found.order)}

    def key(item: Ranked) -> int:
        return place.get(item.contestant.name, len(place))

    return replace(ranking, ranked=tuple(sorted(ranking.ranked, key=key)))


def _lay(recipe: Recipe, place: Folder, contestants: int) -> splits.Splits:
    """Rows parted, with a file for every number of rows that a rung may ask for."""
    lm = kept(recipe)
    most = splits.lay(recipe, lm, place).counts["train"]
    rungs = rungs_of(contestants, 2)  # at most
    sizes = {share for count in range(1, rungs + 1) for share in shares(count, most)}
    return splits.lay(_asking(recipe, curve=sorted(sizes)), lm, place)


def _asking(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update={"compare": recipe.compare.model_copy(update=changes)})
