"""Trials of a pilot: those of a comparison, with as many steps as their time allows.

Rows are parted, trained on and scored as `softprompt compare` does, and trials are named as there, so that
the same steps on the same rows are not run twice. How many steps fit is known from one step that is timed
before a method's first trial, and from its trials after that; what takes longer than it may is cut off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

from ..compare.contestants import Contestant as Entrant
from ..compare.contestants import contestants
from ..compare.folder import Folder, Record
from ..compare.ground import Ground
from ..compare.trials import Trial, Trials
from ..errors import SoftPromptError
from ..recipe import Recipe
from .contestants import Contestant
from .pilot import Scored, Settings, rungs_of
from .rank import Ranking
from .recipes import own_rate

MOST = 6  # trained methods
STEPS = (16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 400, 512, 640, 800)
SPARE = 0.9  # of a trial's time that is planned for: a busy machine takes the rest
AROUND = 144  # rows that are read beside those of the steps, at least
EVALUATIONS = 1.5  # of the dev rows: the last; where inputs are kept, they are read before that
#: Methods, and learning rates of each. Of all a fair rate is known, of none whether it is good on these rows:
#: in a short time many methods are tried rather than many rates.
FIELDS = ((6, 3), (6, 2), (6, 1), (5, 1), (4, 1), (3, 1), (2, 1))


class Work(Protocol):
    """What a pilot asks of a machine."""

    def step_seconds(self, trial: Trial) -> float:
        """Of one step of it, timed."""
        ...

    def run(self, trial: Trial, seconds: float | None) -> Record:
        """Its record; cut off after so many seconds of training."""
        ...


@final
class Here(Work):
    """In this process."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def step_seconds(self, trial: Trial) -> float:
        from ..compare.bases import forget, frozen_base
        from ..config import recipe_from_dict
        from ..prepare import prepare
        from ..timing import step_seconds, typical_batch
        from ..tuning import optimization

        recipe = recipe_from_dict(trial.recipe)
        if (base := frozen_base(recipe)) is None:
            forget()
        prepared = prepare(recipe, lm=base)
        return step_seconds(prepared, typical_batch(prepared.train, optimization(recipe)), repeats=1)

    def run(self, trial: Trial, seconds: float | None) -> Record:
        from ..compare.run import Job, run_trials

        return run_trials(Job(str(self._folder.path), (trial,), seconds=seconds))[0]


@dataclass
class _Pace:
    """Of one contestant: seconds of a step, and of all that is not a step."""

    step: float
    around: float


@dataclass
class Player:
    """Plays trials of a comparison's contestants; `run` is what `pilot` asks for."""

    recipe: Recipe  # whose compare section names the contestants
    folder: Folder
    ground: Ground
    work: Work
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], None] = lambda text: None
    row_seconds: float = 0.0  # of one row through the plain model, once a reference was played
    _paces: dict[str, _Pace] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._trials = Trials(self.folder, self.ground)
        self._who = {one.name: one for one in contestants(self.recipe)}
        self._seed = self.recipe.train.seed

    def run(self, name: str, settings: Settings, rows: int, seconds: float) -> Scored:
        """What it came to. Raises SoftPromptError for a trial that failed."""
        one, started = self._who[name], self.clock()
        if one.is_reference:  # its loss counts all words that were never said to be wrong: nothing finer
            return self._score(self._reference(one))._replace(finer=None)
        pace = self._paces.get(name)
        if pace is None:
            pace = self._paces[name] = self._probe(one, settings, rows)
        left = seconds - (self.clock() - started)
        steps = fitting(SPARE * left - pace.around, pace.step)
        trial = self._training(one, settings, rows, steps)
        record = self.work.run(trial, max(1.0, left - pace.around))
        self._learn(name, record, self.clock() - started - (seconds - left))
        score = self._score(record)
        self.say(f"  {name}  {_said(settings)}  {steps} steps on {rows} rows: {_dev(record)}")
        return score

    def _reference(self, one: Entrant) -> Record:
        started = self.clock()
        record = self.work.run(self._trials.reference(one, self._seed), None)
        took = record.get("seconds") or self.clock() - started
        if record["status"] == "done":
            each = took / max(1, self.ground.counts["dev"]) / (1 + one.options.get("shots", 0))
            self.row_seconds = max(self.row_seconds, each)
            self.say(f"  {one.name}  {_dev(record)}")
        return record

    def _probe(self, one: Entrant, settings: Settings, rows: int) -> _Pace:
        step = self.work.step_seconds(self._training(one, settings, rows, STEPS[0]))
        read = EVALUATIONS * self.ground.counts["dev"] + rows
        return _Pace(step, read * self.row_seconds)

    def _training(self, one: Entrant, settings: Settings, rows: int, steps: int) -> Trial:
        long = {"train.steps": steps, "train.eval_every": steps}
        some = rows if rows < self.ground.counts["train"] else None
        return self._trials.training(one, "search", {**settings, **long}, self._seed, some)

    def _learn(self, name: str, record: Record, took: float) -> None:
        """Its pace, from a trial that was run now."""
        steps, trained = record.get("steps"), (record.get("cost") or {}).get("train_seconds")
        if steps and trained and trained <= took:
            looked = min(trained / 2, self.ground.counts["dev"] * self.row_seconds)  # at the dev rows
            self._paces[name] = _Pace((trained - looked) / steps, took - trained + looked)

    def _score(self, record: Record) -> Scored:
        if record["status"] == "failed":
            error = record["error"]
            raise SoftPromptError(error["what"], error.get("why", ""), error.get("fix", ""))
        value, *rest = record["dev_key"]  # the metric, and the log-loss
        return Scored(value, standard_error(value, self.ground.counts["dev"]), rest[0] if rest else None)


def standard_error(score: float, rows: int) -> float:
    """Of a mean over rows of what is right or wrong (at most, of what lies between); 0 for other numbers."""
    return math.sqrt(score * (1 - score) / rows) if 0 <= score <= 1 and rows else 0.0


def fitting(seconds: float, step: float) -> int:
    """The most steps of the ladder that fit; the fewest where none does."""
    return max((n for n in STEPS if n * step <= seconds), default=STEPS[0])


def field_of(ranking: Ranking, rates: Mapping[str, str], seconds: float, shortest: float) -> dict:
    """Who plays and with which settings: as many as `seconds` give `shortest` to each in the first rung.

    `rates` are the names of the learning rates' settings, by contestant. The first of the ranking come first.
    """
    trained = [item.contestant for item in ranking.ranked if item.contestant.name in rates]
    sizes = [(n, r) for n, r in FIELDS if n * r * shortest * rungs_of(n, r) <= seconds]
    methods, count = sizes[0] if sizes else FIELDS[-1]
    return {
        one.name: [{rates[one.name]: rate} for rate in rates_of(one)[:count]] for one in trained[:methods]
    }


def rates_of(contestant: Contestant) -> list[float]:
    """Learning rates to try, the method's own first."""
    own = own_rate(contestant)
    return [float(f"{own * factor:.1g}") for factor in (1, 3, 1 / 3)]


def shortest_trial(row_seconds: float, batch_size: int) -> float:
    """Seconds under which a trial shows nothing: about 16 steps, and what stands around them."""
    return 3.0 + (16 * batch_size + AROUND) * row_seconds


def _said(settings: Mapping[str, Any]) -> str:
    return " ".join(f"{key.split('.')[-1]}={value:g}" for key, value in settings.items())


def _dev(record: Record) -> str:
    values: dict[str, Any] = record.get("dev") or {
        name: score["value"] for name, score in (record.get("metrics") or {}).items()
    }
    if record["status"] == "failed":
        return f"failed: {record['error']['what']}"
    shown: Sequence[str] = [f"{name} {value:.3g}" for name, value in values.items()]
    return shown[0] if shown else ""
