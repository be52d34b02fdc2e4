"""Successive halving over simulated runs: it finds the best within its time, whatever fails on the way."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from softprompt.errors import SoftPromptError
from softprompt.recommend.successive_halving import (
    FEWEST_ROWS,
    Pilot,
    Played,
    Scored,
    best_first,
    pilot,
    rungs_of,
)

RATES = [{"lr": rate} for rate in (1e-2, 1e-3, 1e-1)]


class World:
    """Contestants that learn as 1 − e^(−n/50) in n steps, towards their own limit; trials take all the time.

    A step takes `step` seconds, one of a contestant in `dear` so many times as long; trials come out `slow`
    times as long as was thought.
    """

    def __init__(
        self,
        limits: dict[str, float],
        *,
        noise: float = 0.0,
        seed: int = 0,
        slow: float = 1.0,
        step: float = 0.1,
        dear: dict[str, float] | None = None,
    ) -> None:
        self.limits, self.noise, self.slow, self.step = limits, noise, slow, step
        self.dear = dear or {}
        self.now, self.asked = 0.0, []
        self.random = random.Random(seed)

    def clock(self) -> float:
        return self.now

    def pace(self, name: str) -> float:
        return self.step * self.dear.get(name, 1.0)

    def steps(self, turns, rows: int, seconds: float) -> int:
        return max(1, int(seconds / sum(self.pace(name) for name, _ in turns) + 1e-9))

    def run(self, name: str, settings: dict[str, float], rows: int, steps: int, seconds: float) -> Scored:
        self.asked.append((name, settings["lr"], rows, steps))
        self.now += steps * self.pace(name) * self.slow
        off = abs(math.log10(settings["lr"] / 1e-2))  # the right rate is 1e-2
        learned = 1 - math.exp(-steps / 50)
        return Scored((self.limits[name] - 0.1 * off) * learned + self.random.gauss(0, self.noise))

    def pilot(self, run: Callable | None = None, seconds: float = 600.0, rows: int = 1000, rates=RATES):
        candidates = {name: rates for name in self.limits}
        if run is not None:
            self.run = run  # type: ignore[method-assign]
        return pilot(self, candidates, rows=rows, seconds=seconds, clock=self.clock)


EIGHT = {f"c{i}": 0.6 + 0.04 * i for i in range(8)}


def test_it_finds_the_best_and_its_rate_within_the_time():
    world = World(EIGHT)
    found = world.pilot()
    assert found.best.contestant == "c7" and found.best.settings == {"lr": 1e-2}
    assert 570.0 < world.now <= 600.0 + 1e-6  # whole steps
    assert [trial.contestant for trial in found.order[:2]] == ["c7", "c6"]
    assert len(found.order) == 8 and not found.unplayed


def test_under_noise_it_is_near_the_best():
    """Noise of 2 points on limits 4 apart: the winner is one of the best two in nearly every draw."""
    near = sum(
        World(EIGHT, noise=0.02, seed=seed).pilot().best.contestant in ("c7", "c6") for seed in range(50)
    )
    assert near >= 48


def test_every_contestant_and_setting_is_played_first_then_fewer_for_longer_on_more_rows():
    world = World(EIGHT)
    found = world.pilot()
    first = [trial for trial in found.played if trial.rung == 0]
    assert {(t.contestant, t.settings["lr"]) for t in first} == {(n, r["lr"]) for n in EIGHT for r in RATES}
    for earlier, later in pairwise(range(rungs_of(8, 3))):
        a = [t for t in found.played if t.rung == earlier]
        b = [t for t in found.played if t.rung == later]
        assert len(b) < len(a) and b[0].steps > a[0].steps and b[0].rows >= a[0].rows
        assert len({t.steps for t in a}) == 1
        assert {t.contestant for t in b} <= {t.contestant for t in a}
    last = [t for t in found.played if t.rung == rungs_of(8, 3) - 1]
    assert len(last) == 2 and {t.rows for t in last} == {1000}


def test_rows_are_never_more_than_there_are():
    found = World(EIGHT).pilot(rows=20)
    assert {trial.rows for trial in found.played} == {20}
    found = World(EIGHT).pilot(rows=100)
    assert min(trial.rows for trial in found.played) == FEWEST_ROWS


def test_a_contestant_that_fails_loses_and_is_kept_with_its_reason():
    world = World(EIGHT)
    usual = world.run

    def run(name, *asked):
        if name == "c7":
            raise SoftPromptError("memory ran out")
        score = usual(name, *asked)
        return Scored(math.nan) if name == "c6" else score

    found = world.pilot(run)
    assert found.best.contestant == "c5"
    assert {t.error for t in found.played if t.contestant == "c7"} == {"memory ran out"}
    assert {t.contestant for t in found.order[-2:]} == {"c7", "c6"}


def test_a_failure_later_on_does_not_lose_what_was_had():
    world, seen = World({"a": 0.9, "b": 0.8}), []
    usual = world.run

    def run(name, *asked):
        seen.append(name)
        if name == "a" and seen.count("a") > len(RATES):
            raise SoftPromptError("killed")
        return usual(name, *asked)

    found = world.pilot(run)
    assert found.best.contestant == "b"
    kept = next(trial for trial in found.order if trial.contestant == "a")
    assert kept.rung == 0 and kept.score > 0


def test_dear_steps_are_as_many_as_cheap_ones():
    """Ten times as dear, and a little better in the end: in equal seconds it would have learned less."""
    world = World({"cheap": 0.8, "dear": 0.85}, dear={"dear": 10.0})
    found = world.pilot(seconds=60.0, rates=RATES[:1])
    assert found.best.contestant == "dear"
    assert len({trial.steps for trial in found.played}) == 1 and world.now == pytest.approx(60.0, abs=2.0)


def test_trials_that_overrun_leave_fewer_steps_to_the_rest():
    world = World(EIGHT, slow=1.5)
    found = world.pilot()
    longest = max(trial.seconds for trial in found.played)
    assert found.seconds <= 600.0 + longest
    first = [trial.steps for trial in found.played if trial.rung == 0]
    assert first == sorted(first, reverse=True) and first[-1] < first[0]
    world = World(EIGHT, slow=1000.0)
    found = world.pilot()
    assert found.order[0].rung == 0 and set(found.unplayed) == set(EIGHT) - {
        t.contestant for t in found.played
    }
    assert found.unplayed


def test_no_candidates_or_nothing_but_failures_is_an_error():
    with pytest.raises(SoftPromptError, match="settings to try"):
        World({}).pilot()

    def fail(*_):
        raise SoftPromptError("no such model")

    with pytest.raises(SoftPromptError) as caught:
        World({"a": 1.0, "b": 1.0}).pilot(fail, rows=10, seconds=1.0)
    assert caught.value.why == "no such model"


@pytest.mark.parametrize(("contestants", "rungs"), [(1, 2), (2, 2), (3, 2), (6, 2), (7, 3), (18, 3), (19, 4)])
def test_rungs(contestants, rungs):
    assert rungs_of(contestants, 3) == rungs
    assert rungs_of(contestants, 1) == 1


def test_with_one_setting_each_all_play_once_on_all_rows():
    world = World(EIGHT)
    found = world.pilot(seconds=80.0, rates=RATES[:1])
    assert {(trial.rung, trial.rows) for trial in found.played} == {(0, 1000)}
    assert [trial.contestant for trial in found.order] == [f"c{i}" for i in range(7, -1, -1)]
    assert [trial.seconds for trial in found.played] == pytest.approx([10.0] * 8)


def test_time_that_is_left_goes_to_the_others_of_those_who_did_best():
    """The steps are at most fifty: eight trials take forty seconds of sixty, and four more are played."""
    world = World(EIGHT)
    usual = world.steps
    world.steps = lambda *asked: min(50, usual(*asked))  # type: ignore[method-assign]
    candidates = {name: RATES for name in EIGHT}
    found = pilot(world, candidates, rows=1000, seconds=60.0, first=1, clock=world.clock)
    assert [trial.contestant for trial in found.played[8:]] == ["c7", "c6", "c5", "c4"]
    assert {trial.settings["lr"] for trial in found.played[8:]} == {RATES[1]["lr"]}
    assert {(trial.rung, trial.rows, trial.steps) for trial in found.played} == {(0, 1000, 50)}
    assert found.best.contestant == "c7" and found.best.settings == {"lr": 1e-2}


def test_what_noise_does_not_part_goes_by_what_is_finer():
    """Of those within a standard error of the best; a reference, which has nothing finer, keeps its place."""

    def trial(name: str, score: float, finer: float | None) -> Played:
        return Played(name, {}, 0, 100, 50, 1.0, score, noise=0.04, finer=finer)

    trials = [trial("a", 0.80, -2.0), trial("b", 0.78, -1.0), trial("few-shot", 0.79, None)]
    trials += [trial("c", 0.75, -0.5), trial("failed", -math.inf, None)]
    assert [one.contestant for one in best_first(trials)] == ["b", "few-shot", "a", "c", "failed"]


def test_who_is_not_parted_from_the_best_is_told():
    def messages(*scores: float, noise: float = 0.04) -> tuple[str, ...]:
        order = [Played(f"c{i}", {}, 0, 100, 50, 1.0, score, noise=noise) for i, score in enumerate(scores)]
        order.append(Played("early", {}, -1, 100, 50, 1.0, 0.9, noise=noise))
        return Pilot(tuple(order), tuple(order), (), 1.0).unparted

    assert messages(0.80, 0.82, 0.77) == ("c0", "c1")
    assert messages(0.80, 0.70) == () and messages(0.8, 0.8, noise=0.0) == ("c0", "c1")


def test_a_finer_score_finds_the_better_more_often():
    """Accuracies of 100 rows, and losses that move half as much: drawn a thousand times."""
    draw, right = random.Random(0), {"score": 0, "finer": 0}
    for _ in range(1000):
        trials = []
        for name, accuracy in (("better", 0.84), ("worse", 0.80)):
            seen = sum(draw.random() < accuracy for _ in range(100)) / 100
            finer = accuracy + draw.gauss(0, 0.02)
            trials.append(Played(name, {}, 0, 100, 50, 1.0, seen, noise=0.04, finer=finer))
        right["score"] += max(trials, key=lambda one: one.score).contestant == "better"
        right["finer"] += best_first(trials)[0].contestant == "better"
    assert right["finer"] > right["score"] + 50
