"""Trials of a pilot: those of a comparison, with as many steps as the time allows all of them.

Rows are parted, trained on and scored as `softprompt compare` does, and trials are named as there, so that
the same steps on the same rows are not run twice. How many steps fit is known from one step that is timed
before a method's first trial, and from its trials after that; what takes far longer is cut off.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

from ..compare.candidates import Candidate as Entrant
from ..compare.candidates import contestants
from ..compare.splits import Splits
from ..compare.store import Folder, Record
from ..compare.trials import Trial, Trials
from ..config.schema import Recipe
from ..errors import SoftPromptError
from .candidates import MethodChoice
from .rank import Ranking
from .recipes import own_rate
from .successive_halving import Runner, Scored, Settings, Turn, first_turns, rungs_of, shares

STEPS = (16, 20, 24, 28, 32, 36, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256, 320, 400, 512, 640, 800)
SPARE = 0.9  # of the time that is planned for: a busy machine takes the rest
PATIENCE = 2.0  # times what was planned, after which a trial is cut off
EVALUATIONS = 1.5  # of the dev rows: the last; where inputs are kept, they are read before that
#: Methods, and learning rates of each, in the order of what they take. Of all a fair rate is known, of none
#: whether it is good on these rows: in a short time many methods are tried rather than many rates.
FIELDS = ((2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (7, 2), (7, 3))
ENOUGH = 48  # steps, or half of the recipe's: with fewer, the order is not yet that of longer trials


@dataclass(frozen=True)
class TrialSeconds:
    """Of one contestant's trials: what they take, in seconds."""

    step: float
    reading: float  # of a training row before its first step, where inputs are kept; else 0
    around: float = 0.0  # of all that is neither: rows, dev rows
    batch: int = 1  # rows of a step

    def seconds(self, steps: int, rows: int) -> float:
        """Of a trial of so many steps on so many rows."""
        return self.around + steps * self.step + min(rows, steps * self.batch) * self.reading


class Work(Protocol):
    """What a pilot asks of a machine."""

    def step_seconds(self, trial: Trial) -> tuple[float, bool]:
        """Of one step of it, timed; and whether its inputs are read before it, once, and kept."""
        ...

    def run(self, trial: Trial, seconds: float | None) -> Record:
        """Its record; cut off after so many seconds of training."""
        ...


@final
class Here(Work):
    """In this process."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def step_seconds(self, trial: Trial) -> tuple[float, bool]:
        from ..compare.model_pool import forget, frozen_base
        from ..config.load import recipe_from_dict
        from ..training.prepare import prepare
        from ..training.step_timing import step_seconds, typical_batch
        from ..training.tune import optimization

        recipe = recipe_from_dict(trial.recipe)
        if (base := frozen_base(recipe)) is None:
            forget()
        prepared = prepare(recipe, lm=base)
        batch = typical_batch(prepared.train, optimization(recipe))
        return step_seconds(prepared, batch, repeats=1), prepared.plan.is_cached

    def run(self, trial: Trial, seconds: float | None) -> Record:
        from ..compare.worker import Job, run_trials

        return run_trials(Job(str(self._folder.path), (trial,), seconds=seconds))[0]


@final
@dataclass
class Player(Runner):
    """Plays trials of a comparison's contestants."""

    recipe: Recipe  # whose compare section names the contestants
    folder: Folder
    ground: Splits
    work: Work
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], None] = lambda text: None
    row_seconds: float = 0.0  # of one row through the plain model, once a reference was played
    _paces: dict[str, TrialSeconds] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._trials = Trials(self.folder, self.ground)
        self._who = {one.name: one for one in contestants(self.recipe)}
        self._seed = self.recipe.train.seed

    def steps(self, turns: Sequence[Turn], rows: int, seconds: float) -> int:
        """The most of the ladder that all of them can have within the time; the fewest where none fits.

        Never more than the recipe's own: what a longer training comes to was not asked.
        """
        until = self.clock() + seconds
        for name, settings in turns:
            if name not in self._paces:
                self._paces[name] = self._probe(self._who[name], settings, rows)
        left = SPARE * (until - self.clock())
        paces = [self._paces[name] for name, _ in turns]
        most = self.recipe.train.steps
        ladder = [*(n for n in STEPS if n < most), most]
        return max((n for n in ladder if sum(p.seconds(n, rows) for p in paces) <= left), default=ladder[0])

    def run(self, contestant: str, settings: Settings, rows: int, steps: int, seconds: float) -> Scored:
        """What it came to. Raises SoftPromptError for a trial that failed."""
        one, started, pace = self._who[contestant], self.clock(), self._paces[contestant]
        most = min(seconds, PATIENCE * pace.seconds(steps, rows)) - pace.around
        record = self.work.run(self._training(one, settings, rows, steps), max(1.0, most))
        self._learn(contestant, record, self.clock() - started)
        score = self._score(record)
        self.say(f"  {contestant}  {_said(settings)}  {steps} steps on {rows} rows: {_dev(record)}")
        return score

    def reference(self, name: str) -> Scored:
        """What the plain model comes to: the words that it says, or those and some rows."""
        score = self._score(self._reference(self._who[name]))
        return score._replace(finer=None)  # its loss counts words that it was never told were wrong

    def _reference(self, one: Entrant) -> Record:
        started = self.clock()
        record = self.work.run(self._trials.reference(one, self._seed), None)
        took = record.get("seconds") or self.clock() - started
        if record["status"] == "done":
            each = took / max(1, self.ground.counts["dev"]) / (1 + one.options.get("shots", 0))
            self.row_seconds = min(self.row_seconds or each, each)  # the first one warms the machine up
            self.say(f"  {one.name}  {_dev(record)}")
        return record

    def _probe(self, one: Entrant, settings: Settings, rows: int) -> TrialSeconds:
        """Of one that was not played yet. One that cannot be timed will say why when it is played."""
        around = EVALUATIONS * self.ground.counts["dev"] * self.row_seconds
        try:
            step, kept = self.work.step_seconds(self._training(one, settings, rows, STEPS[0]))
        except SoftPromptError:
            return TrialSeconds(0.0, 0.0)
        return TrialSeconds(step, self.row_seconds if kept else 0.0, around, self.recipe.train.batch_size)

    def _training(self, one: Entrant, settings: Settings, rows: int, steps: int) -> Trial:
        long = {"train.steps": steps, "train.eval_every": steps}
        some = rows if rows < self.ground.counts["train"] else None
        return self._trials.training(one, "search", {**settings, **long}, self._seed, some)

    def _learn(self, name: str, record: Record, took: float) -> None:
        """Its pace, from a trial that was run now; what was read is taken to be read in the steps."""
        steps, trained = record.get("steps"), (record.get("cost") or {}).get("train_seconds")
        if steps and trained and trained <= took:
            looked = min(trained / 2, self.ground.counts["dev"] * self.row_seconds)  # at the dev rows
            pace = TrialSeconds((trained - looked) / steps, 0.0, took - trained + looked)
            self._paces[name] = pace

    def _score(self, record: Record) -> Scored:
        if record["status"] == "failed":
            error = record["error"]
            raise SoftPromptError(error["what"], error.get("why", ""), error.get("fix", ""))
        value, *rest = record["dev_key"]  # the metric, and the log-loss
        return Scored(value, standard_error(value, self.ground.counts["dev"]), rest[0] if rest else None)


def standard_error(score: float, rows: int) -> float:
    """Of a mean over rows of what is right or wrong (at most, of what lies between); 0 for other numbers."""
    return math.sqrt(score * (1 - score) / rows) if 0 <= score <= 1 and rows else 0.0


def field_of(
    ranking: Ranking, rates: Mapping[str, str], player: Player, rows: int, left: Callable[[], float]
) -> tuple[dict[str, list[Settings]], int]:
    """Who plays, each with all its settings, and with how many at first: as many as can have `ENOUGH` steps.

    `rates` are the names of the learning rates' settings, by contestant; `left` says how many seconds there
    are. The first of the ranking come first.
    """
    trained = [item.contestant for item in ranking.ranked if item.contestant.name in rates]
    settings: list[tuple[str, list[Settings]]] = [
        (one.name, [{rates[one.name]: rate} for rate in rates_of(one)]) for one in trained
    ]
    chosen, enough = FIELDS[0], min(ENOUGH, player.recipe.train.steps // 2)
    for methods, first in FIELDS:
        wider = {name: own[:first] for name, own in settings[:methods]}
        rungs = rungs_of(len(wider), first)
        steps = player.steps(first_turns(wider), shares(rungs, rows)[0], left() / rungs)
        if steps < enough:
            break
        chosen = methods, first
    return dict(settings[: chosen[0]]), chosen[1]


def rates_of(contestant: MethodChoice) -> list[float]:
    """Learning rates to try, the method's own first."""
    own = own_rate(contestant)
    return [float(f"{own * factor:.1g}") for factor in (1, 3, 1 / 3)]


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
