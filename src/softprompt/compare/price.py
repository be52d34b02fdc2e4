"""A comparison at equal time is priced here: its plan is made, and nothing is kept."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass

from ..config.schema import Recipe
from .candidates import candidates_of
from .records.pace import Share
from .records.store import Folder
from .running import equal_time, worker
from .running.executors import Serial
from .search import trials_of
from .splits import Splits


@dataclass(frozen=True)
class Priced:
    """Hold the plan of a method's steps, and the seconds of its dev scores, which do not count."""

    share: Share
    trainings: int
    dev_seconds: float


def price(recipe: Recipe) -> tuple[list[Priced], list[str]]:
    """Time the methods on this machine; return each one's price, and notes on the plan.

    Raises SoftPromptError for rows or a budget that a comparison cannot use.
    """
    with tempfile.TemporaryDirectory() as place:
        folder, plain = Folder(place), recipe.model_copy(update={"base": type(recipe.base)()})
        look = worker.FirstLook(place, plain.to_dict(), recipe.train.threads)
        candidates, splits = candidates_of(recipe), Splits(**worker.run(look))
        timed = equal_time.plan(recipe, candidates, splits, folder, Serial(), evaluates=True)
    prices = []
    for item in equal_time.with_steps(candidates, timed):
        if item.name in timed.shares:
            share, train = timed.shares[item.name], item.recipe.train
            trainings = trials_of(item, recipe.compare) + recipe.compare.seeds
            scores = -(-share.steps // (train.eval_every or share.steps))
            prices.append(Priced(share, trainings, trainings * scores * share.pace.evaluation))
    return prices, timed.notes
