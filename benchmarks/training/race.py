"""Both sides of time-to-accuracy share the rows, a clock that can be paused, and the record of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import base_models
from benchmarks.quality import DEMONSTRATIONS, SENTIMENT, recipe
from softprompt.config.load import recipe_from_dict
from softprompt.training.prepare import Prepared, prepare

from . import clock
from .options import Options


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial is one run. `reached` is the seconds of training to the target, None if it was not reached."""

    side: str
    contestant: str
    rate: float
    seed: int
    dtype: str
    reached: float | None
    spent: float  # seconds of training in all
    steps: int
    best: float  # accuracy

    def to_json(self) -> dict[str, Any]:
        """Return plain values; `Trial(**values)` reads them."""
        return asdict(self)


class Race:
    """Counts a run's training time: evaluations pause it, the target or the budget ends it."""

    def __init__(self, target: float, give_up: float) -> None:
        self.target, self.give_up = target, give_up
        self.reached: float | None = None
        self.best, self.seconds = 0.0, 0.0
        self._since = clock.now()

    def now(self) -> float:
        """Return the seconds of training so far."""
        return self.seconds + clock.now() - self._since

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the clock while the block runs."""
        self.seconds = self.now()
        try:
            yield
        finally:
            self._since = clock.now()

    def note(self, accuracy: float) -> None:
        """Record an accuracy that was measured while the clock was paused."""
        self.best = max(self.best, accuracy)
        if accuracy >= self.target and self.reached is None:
            self.reached = self.seconds

    @property
    def over(self) -> bool:
        """True if the target is reached or the budget is spent."""
        return self.reached is not None or self.now() > self.give_up


TEXT = "The overall sentiment of this review is"
SHOWN = {"input": DEMONSTRATIONS + SENTIMENT["template"]["input"]}  # a template that shows four reviews


def prepared(
    options: Options,
    contestant: str,
    seed: int,
    dtype: str,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Prepared:
    """Prepare a contestant of benchmarks/quality.py on the rows of this race, with its own base model.

    The seed draws `options.train_rows` rows; accuracy is measured on rows of validation.jsonl. `changes`
    override the recipe's sections.
    """
    data = options.data / "sst2"
    wanted = recipe(contestant, data, seed, options.out)
    wanted["data"] |= {
        "limit": options.train_rows,
        "dev": str((data / "validation.jsonl").resolve()),
        "dev_limit": options.dev_rows,
    }
    wanted["train"] |= {"eval_every": options.every, "dtype": dtype}
    if contestant.endswith("/before"):
        wanted["train"] |= {"steps": options.search_steps, "batch_size": options.batch}
    for section, values in (changes or {}).items():
        wanted[section] |= values
    lm = base_models.load(options.model, dtype)
    return prepare(recipe_from_dict(wanted), lm=lm)
