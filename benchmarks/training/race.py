"""What the two sides of time-to-accuracy share: the rows, a clock that can be held, and what a run leaves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import softprompt
from benchmarks.quality import DEMONSTRATIONS, SENTIMENT, recipe
from softprompt.config.load import recipe_from_dict
from softprompt.training.prepare import Prepared, prepare

from .options import Options


@dataclass(frozen=True, slots=True)
class Trial:
    """One run. `reached`: seconds of training to the target, None where it never came there."""

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
        """Plain values; `Trial(**values)` reads them."""
        return asdict(self)


class Race:
    """The clock of one run: evaluations hold it, the target or the budget ends it."""

    def __init__(self, target: float, give_up: float) -> None:
        self.target, self.give_up = target, give_up
        self.reached: float | None = None
        self.best, self.seconds = 0.0, 0.0
        self._since = time.perf_counter()

    def now(self) -> float:
        """Seconds of training so far."""
        return self.seconds + time.perf_counter() - self._since

    @contextmanager
    def held(self) -> Iterator[None]:
        """What runs inside is not counted."""
        self.seconds = self.now()
        try:
            yield
        finally:
            self._since = time.perf_counter()

    def note(self, accuracy: float) -> None:
        """An accuracy that was measured while the clock was held."""
        self.best = max(self.best, accuracy)
        if accuracy >= self.target and self.reached is None:
            self.reached = self.seconds

    @property
    def over(self) -> bool:
        """Whether there is nothing left to wait for."""
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
    """A contestant of benchmarks/quality.py on the rows of this race: a base model of its own, and a start.

    `options.train_rows` rows drawn by the seed; accuracy is that of rows of validation.jsonl. `changes`
    are laid over the recipe's sections.
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
    lm = softprompt.load(options.model, dtype=dtype)  # type: ignore[arg-type]
    return prepare(recipe_from_dict(wanted), lm=lm)
