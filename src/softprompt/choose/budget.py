"""How long a comparison will take, by a step of each method measured here, and what is cut to fit a time.

What a step, a row and a text take is what `softprompt check` measures; the rest is counting. Trials of one
search go side by side and cost less than is counted here, so that the sum is rather too large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..compare.contestants import Contestant, contestants
from ..compare.search import trials_of
from ..data.sources import Row
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..prepare import load_base, prepare
from ..pricing import Price
from ..pricing import measure as price_of
from ..recipe import Recipe

SAMPLE, SAMPLE_DEV = 64, 16  # rows that are measured on
START = 8.0  # seconds until a worker has loaded its model
SERVED = 6 * (2 * 8 + 2)  # generated rows of 16 tokens of a serving measure, in its six rounds
STEPS = (150, 100, 75, 50, 30)
RATES = ([1e-3, 3e-3, 1e-2, 3e-2], [3e-3, 1e-2, 3e-2], [3e-3, 1e-2])
BASE_RATES = ([1e-4, 3e-4, 1e-3, 3e-3], [3e-4, 1e-3, 3e-3], [3e-4, 1e-3])


@dataclass(frozen=True)
class Counts:
    """Rows of each split, about."""

    train: int
    dev: int
    test: int  # unseen rows too


@dataclass(frozen=True)
class Pace:
    """What was measured: seconds of a contestant's step, of one row scored, of one answered in text."""

    step: dict[str, float]
    row: dict[str, float]
    text: float

    def seconds(self, recipe: Recipe, counts: Counts) -> float:
        """Of the whole comparison."""
        return START + sum(self._of(one, recipe, counts) for one in contestants(recipe))

    def _of(self, one: Contestant, recipe: Recipe, counts: Counts) -> float:
        how, row = recipe.compare, self.row.get(one.name, max(self.row.values(), default=0.0))
        texts = self.text * min(how.text_rows or counts.test, counts.test)
        if one.is_reference:
            longer = 1 + (how.shots if one.name == "few-shot" else 0)
            return 0.0 if one.name == "tf-idf" else longer * (row * (counts.dev + counts.test) + texts)
        training = recipe.train.steps * self.step[one.name]
        cached = row * (counts.train + counts.dev)
        evaluations = 7 * row * counts.dev  # five while training, the plain model's and the last
        runs = trials_of(one, how) + how.seeds * (1 + len(how.curve))
        scores = how.seeds * (row * counts.test + texts)
        measures = 12 * row * how.control_rows if how.control else 0.0
        measures += SERVED * max(row, self.text / 2) if how.serving else 0.0
        return runs * (training + evaluations + cached) + scores + measures


def measure(
    recipe: Recipe,
    lm: LanguageModel,
    rows: Sequence[Row],
    say: Callable[[str], None] = lambda text: None,
) -> Pace:
    """Time one step of every method of the recipe on some of the rows. Raises SoftPromptError for bad rows.

    A method that cannot be priced is counted as the slowest of the others: its trials will say what is wrong.
    """
    train, dev = list(rows[SAMPLE_DEV:][:SAMPLE]), list(rows[:SAMPLE_DEV])
    prices: dict[str, Price] = {}
    trained = [one for one in contestants(recipe) if not one.is_reference]
    failed: list[SoftPromptError] = []
    for one in trained:
        say(f"measuring one step of {one.name} …")
        base = load_base(one.recipe) if one.trains_base else lm
        try:
            prices[one.name] = price_of(prepare(one.recipe, lm=base, rows=train, dev_rows=dev), slower=False)
        except SoftPromptError as error:
            failed.append(error)
    if failed and not prices:
        raise failed[0]
    slowest = max((price.step_seconds for price in prices.values()), default=0.0)
    step = {one.name: prices[one.name].step_seconds if one.name in prices else slowest for one in trained}
    row = {name: price.evaluation_seconds / len(dev) for name, price in prices.items()}
    text = [price.text_seconds / (2 * len(dev)) for price in prices.values()]
    return Pace(step, row, max(text, default=0.0))


def fit(
    seconds_of: Callable[[dict[str, Any]], float], within: float, steps: Sequence[int] = STEPS
) -> tuple[dict[str, Any], float]:
    """The first settings (by dotted name) that end `within` seconds, and their time: fewer steps, then rates.

    The shortest where none does.
    """
    settings, time = {}, 0.0
    for rates, base_rates in zip(RATES, BASE_RATES, strict=True):
        for count in steps:
            # fewer rates are tried only where few steps did not do
            if rates is not RATES[0] and count > steps[min(2, len(steps) - 1)]:
                continue
            settings = {
                "train.steps": count,
                "compare.rates": rates,
                "compare.base_rates": base_rates,
            }
            time = seconds_of(settings)
            if time <= within:
                return settings, time
    return settings, time
