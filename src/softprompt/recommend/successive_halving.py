"""A pilot: short runs on the user's rows, of which the better halves get longer ones (successive halving).

Jamieson & Talwalkar 2016 (arXiv 1502.07943), with three departures: the budget is seconds, and the trials of
a rung have as many steps as all of them can have within its share; the first rung settles the settings of
every contestant (the learning rate decides most), so that only whole contestants are dropped after it; and
trials that the score's own noise does not part are put in order by what is less noisy. What a trial is, is
the caller's: this file trains nothing.

Equal steps, not equal seconds: a method whose steps are dear would otherwise be judged after fewer of them
than it will have when it is trained for real.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from ..errors import SoftPromptError

Settings = Mapping[str, Any]


class Scored(NamedTuple):
    """What a trial came to on the dev rows."""

    value: float  # higher is better
    noise: float = 0.0  # a standard error of it
    finer: float | None = None  # what moves less by chance, higher is better; None: nothing that compares


Turn = tuple[str, Settings]  # a contestant, and what it plays with


class Runner(Protocol):
    """Who trains."""

    def steps(self, turns: Sequence[Turn], rows: int, seconds: float) -> int:
        """The most that every one of them can have, all together within the seconds."""
        ...

    def run(self, contestant: str, settings: Settings, rows: int, steps: int, seconds: float) -> Scored:
        """The score after so many steps, or after as many as the seconds allowed."""
        ...


KEPT = 3  # of so many contestants one stays
FEWEST_ROWS = 32
FINALISTS = 2  # the last rung compares


@dataclass(frozen=True)
class Played:
    """One trial as it came out."""

    contestant: str
    settings: Settings
    rung: int
    rows: int
    steps: int  # that it was to have
    seconds: float  # that it took
    score: float  # -inf where it failed
    error: str = ""
    noise: float = 0.0
    finer: float | None = None


@dataclass(frozen=True)
class Pilot:
    """All that was played, and the order that came of it."""

    played: tuple[Played, ...]
    order: tuple[Played, ...]  # each contestant's last trial; those that got further first, then by score
    unplayed: tuple[str, ...]  # contestants that the time did not reach
    seconds: float

    @property
    def best(self) -> Played:
        """The winner's last trial."""
        return self.order[0]

    @property
    def unparted(self) -> tuple[str, ...]:
        """Who lies within a standard error of the best score, where the winner is not alone in that."""
        last = [trial for trial in self.order if trial.rung == self.best.rung]
        top = max(last, key=lambda trial: trial.score)
        near = tuple(trial.contestant for trial in last if trial.score >= top.score - top.noise)
        return near if len(near) > 1 else ()


def pilot(
    runner: Runner,
    candidates: Mapping[str, Sequence[Settings]],
    *,
    rows: int,
    seconds: float,
    first: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Pilot:
    """Play within `seconds`; `candidates` are each contestant's settings, the first tried first.

    The first rung plays `first` of each (None: all). Time that is left in the end goes to the others of those
    who did best, one at a time.

    Rungs get equal shares of the time, and a rung's trials equal numbers of steps; fewer for those still to
    come where the first took longer than was thought. Where each has one setting there is one rung, on all
    rows: too little time to tell rates apart is too little to drop a method after a part of it. A trial that
    raises SoftPromptError or gives no finite score loses, and is kept with its reason.

    Raises SoftPromptError where there are no candidates or every trial failed.
    """
    if not candidates or not all(candidates.values()):
        raise SoftPromptError("a pilot needs contestants, each with settings to try")
    started = clock()
    alive = {name: list(settings[:first]) for name, settings in candidates.items()}
    rungs = rungs_of(len(alive), max(map(len, alive.values())))
    played: list[Played] = []
    for rung in range(rungs):
        until = started + seconds * (rung + 1) / rungs
        found = _rung(runner, alive, rung, shares(rungs, rows)[rung], until, clock)
        played += found
        alive = _survivors(found, alive, rung, rungs)
        if not alive or clock() - started >= seconds:
            break
    else:
        played += _further(runner, candidates, played, rungs - 1, started + seconds, clock)
    order = in_order(played)
    if not order or order[0].score == -math.inf:
        reason = next((trial.error for trial in played if trial.error), "the time ran out before the first")
        raise SoftPromptError("no trial of the pilot came to an end", why=reason, fix="give it more time")
    reached = {trial.contestant for trial in played}
    left = tuple(name for name in candidates if name not in reached)
    return Pilot(tuple(played), tuple(order), left, clock() - started)


def rungs_of(contestants: int, settings: int) -> int:
    """One for the settings, then as many as it takes to come down to the finalists, and theirs."""
    if settings == 1:
        return 1
    rungs = 1
    while contestants > FINALISTS:
        contestants = max(FINALISTS, math.ceil(contestants / KEPT))
        rungs += 1
    return rungs + (rungs == 1)


def shares(rungs: int, rows: int) -> list[int]:
    """Rows that each rung plays on: all in the last, a third of the next in each before it."""
    return [min(rows, max(FEWEST_ROWS, round(rows * KEPT ** (rung - rungs + 1)))) for rung in range(rungs)]


def first_turns(settings: Mapping[str, Sequence[Settings]]) -> list[Turn]:
    """Every contestant's first settings, then every one's second, …, so that a short time reaches all."""
    deepest = max(map(len, settings.values()))
    return [(name, own[i]) for i in range(deepest) for name, own in settings.items() if i < len(own)]


def _rung(
    runner: Runner,
    alive: Mapping[str, Sequence[Settings]],
    rung: int,
    rows: int,
    until: float,
    clock: Callable[[], float],
) -> list[Played]:
    turns, played, steps = first_turns(alive), [], sys.maxsize
    for index, turn in enumerate(turns):
        steps = min(steps, runner.steps(turns[index:], rows, until - clock()))
        if clock() >= until:
            break
        played.append(_play(runner, turn, rung, rows, steps, until, clock))
    return played


def _further(
    runner: Runner,
    candidates: Mapping[str, Sequence[Settings]],
    played: Sequence[Played],
    rung: int,
    until: float,
    clock: Callable[[], float],
) -> list[Played]:
    """Settings not played yet, of those in the last rung, the best first; as long as they fit whole."""
    last = best_first([trial for trial in played if trial.rung == rung])
    tried = [(trial.contestant, trial.settings) for trial in played]
    names = list(dict.fromkeys(trial.contestant for trial in last if trial.score > -math.inf))
    rows, steps = last[0].rows, max(trial.steps for trial in last)
    found = []
    for turn in first_turns({name: candidates[name] for name in names}) if names else ():
        if turn not in tried and runner.steps([turn], rows, until - clock()) >= steps:
            found.append(_play(runner, turn, rung, rows, steps, until, clock))
    return found


def _play(
    runner: Runner,
    turn: Turn,
    rung: int,
    rows: int,
    steps: int,
    until: float,
    clock: Callable[[], float],
) -> Played:
    (name, settings), started, error = turn, clock(), ""
    try:
        made = runner.run(name, settings, rows, steps, until - started)
    except SoftPromptError as failure:
        made, error = Scored(-math.inf), failure.what
    if not math.isfinite(made.value):
        made, error = Scored(-math.inf), error or "no finite score"
    took = clock() - started
    return Played(name, settings, rung, rows, steps, took, made.value, error, made.noise, made.finer)


def _survivors(
    found: Sequence[Played], alive: Mapping[str, Sequence[Settings]], rung: int, rungs: int
) -> dict[str, list[Settings]]:
    """Who goes on, each with its best settings."""
    best = [trial for trial in best_first(_best(found)) if trial.score > -math.inf]
    stay = len(alive)
    if rung + 1 < rungs:
        stay = max(FINALISTS, math.ceil(len(alive) / KEPT))
    return {trial.contestant: [trial.settings] for trial in best[:stay]}


def _best(found: Sequence[Played]) -> list[Played]:
    """Each contestant's best of a rung."""
    own: dict[str, list[Played]] = {}
    for trial in found:
        own.setdefault(trial.contestant, []).append(trial)
    return [best_first(trials)[0] for trials in own.values()]


def best_first(trials: Sequence[Played]) -> list[Played]:
    """Trials of one rung: by score, and those within a standard error of the best by what is finer.

    An accuracy on 80 rows moves by five points from draw to draw, a log-loss by less. A trial that has
    nothing finer keeps its place.
    """
    order = sorted(trials, key=lambda trial: -trial.score)
    least = order[0].score - order[0].noise
    places = [i for i, trial in enumerate(order) if trial.score >= least and trial.finer is not None]
    near = sorted((order[i] for i in places), key=lambda trial: -(trial.finer or 0.0))
    for place, trial in zip(places, near, strict=True):
        order[place] = trial
    return order


def in_order(played: Sequence[Played]) -> list[Played]:
    """Each contestant's last trial: those that got further first, then the best first.

    Scores are compared within a rung only: between rungs steps and rows differ.
    """
    reached: dict[str, int] = {}
    for trial in played:
        if trial.score > -math.inf:
            reached[trial.contestant] = max(trial.rung, reached.get(trial.contestant, 0))
    rungs: dict[int, list[Played]] = {}
    for trial in played:
        if trial.rung == reached.get(trial.contestant, trial.rung):
            rungs.setdefault(-1 if trial.contestant not in reached else trial.rung, []).append(trial)
    return [trial for rung in sorted(rungs, reverse=True) for trial in best_first(_best(rungs[rung]))]
