"""Successive halving over simulated runs: it finds the best within its time, whatever fails on the way."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from softprompt.choose.pilot import FEWEST_ROWS, Played, Scored, best_first, pilot, rungs_of
from softprompt.errors import SoftPromptError

RATES = [{"lr": rate} for rate in (1e-2, 1e-3, 1e-1)]


class World:
    """Contestants that learn as 1 − e^(−t/τ) towards their own limit; time passes only in trials."""

    def __init__(
        self, limits: dict[str, float], *, noise: float = 0.0, seed: int = 0, slow: float = 1.0
    ) -> None:
        self.limits, self.noise, self.slow = limits, noise, slow
        self.now, self.asked = 0.0, []
        self.random = random.Random(seed)

    def clock(self) -> float:
        return self.now

    def run(self, name: str, settings: dict[str, float], rows: int, seconds: float) -> Scored:
        self.asked.append((name, settings["lr"], rows, seconds))
        self.now += seconds * self.slow
        off = abs(math.log10(settings["lr"] / 1e-2))  # the right rate is 1e-2
        learned = 1 - math.exp(-seconds / 5)
        return Scored((self.limits[name] - 0.1 * off) * learned + self.random.gauss(0, self.noise))

    def pilot(self, run: Callable | None = None, seconds: float = 600.0, rows: int = 1000):
        candidates = {name: RATES for name in self.limits}
        return pilot(run or self.run, candidates, rows=rows, seconds=seconds, clock=self.clock)


EIGHT = {f"c{i}": 0.6 + 0.04 * i for i in range(8)}


def test_it_finds_the_best_and_its_rate_within_the_time():
    world = World(EIGHT)
    found = world.pilot()
    assert found.best.contestant == "c7" and found.best.settings == {"lr": 1e-2}
    assert world.now == pytest.approx(600.0)
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
        assert len(b) < len(a) and b[0].seconds > a[0].seconds and b[0].rows >= a[0].rows
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

    def run(name, settings, rows, seconds):
        if name == "c7":
            raise SoftPromptError("memory ran out")
        if name == "c6":
            world.run(name, settings, rows, seconds)
            return Scored(math.nan)
        return world.run(name, settings, rows, seconds)

    found = world.pilot(run)
    assert found.best.contestant == "c5"
    assert {t.error for t in found.played if t.contestant == "c7"} == {"memory ran out"}
    assert {t.contestant for t in found.order[-2:]} == {"c7", "c6"}


def test_a_failure_later_on_does_not_lose_what_was_had():
    world, seen = World({"a": 0.9, "b": 0.8}), []

    def run(name, settings, rows, seconds):
        seen.append(name)
        if name == "a" and seen.count("a") > len(RATES):
            raise SoftPromptError("killed")
        return world.run(name, settings, rows, seconds)

    found = world.pilot(run)
    assert found.best.contestant == "b"
    kept = next(trial for trial in found.order if trial.contestant == "a")
    assert kept.rung == 0 and kept.score > 0


def test_trials_that_overrun_leave_less_for_the_rest():
    world = World(EIGHT, slow=1.5)
    found = world.pilot()
    longest = max(seconds for *_, seconds in world.asked) * 1.5
    assert found.seconds <= 600.0 + longest
    world = World(EIGHT, slow=1000.0)
    found = world.pilot()
    assert found.order[0].rung == 0 and set(found.unplayed) == set(EIGHT) - {
        t.contestant for t in found.played
    }
    assert found.unplayed


def test_no_candidates_or_nothing_but_failures_is_an_error():
    with pytest.raises(SoftPromptError, match="settings to try"):
        pilot(lambda *_: Scored(1.0), {"a": []}, rows=10, seconds=1.0)

    def fail(*_):
        raise SoftPromptError("no such model")

    with pytest.raises(SoftPromptError) as caught:
        pilot(fail, {"a": RATES, "b": RATES}, rows=10, seconds=1.0)
    assert caught.value.why == "no such model"


@pytest.mark.parametrize(("contestants", "rungs"), [(1, 2), (2, 2), (3, 2), (6, 2), (7, 3), (18, 3), (19, 4)])
def test_rungs(contestants, rungs):
    assert rungs_of(contestants, 3) == rungs
    assert rungs_of(contestants, 1) == 1


def test_with_one_setting_each_all_play_once_on_all_rows():
    world = World(EIGHT)
    candidates = {name: RATES[:1] for name in EIGHT}
    found = pilot(world.run, candidates, rows=1000, seconds=80.0, clock=world.clock)
    assert {(trial.rung, trial.rows) for trial in found.played} == {(0, 1000)}
    assert [trial.contestant for trial in found.order] == [f"c{i}" for i in range(7, -1, -1)]
    assert [trial.seconds for trial in found.played] == [10.0] * 8


def test_what_noise_does_not_part_goes_by_what_is_finer():
    """Of those within a standard error of the best; a reference, which has nothing finer, keeps its place."""

    def trial(name: str, score: float, finer: float | None) -> Played:
        return Played(name, {}, 0, 100, 1.0, score, noise=0.04, finer=finer)

    trials = [trial("a", 0.80, -2.0), trial("b", 0.78, -1.0), trial("few-shot", 0.79, None)]
    trials += [trial("c", 0.75, -0.5), trial("failed", -math.inf, None)]
    assert [one.contestant for one in best_first(trials)] == ["b", "few-shot", "a", "c", "failed"]


def test_a_finer_score_finds_the_better_more_often():
    """Accuracies of 100 rows, and losses that move half as much: drawn a thousand times."""
    draw, right = random.Random(0), {"score": 0, "finer": 0}
    for _ in range(1000):
        trials = []
        for name, accuracy in (("better", 0.84), ("worse", 0.80)):
            seen = sum(draw.random() < accuracy for _ in range(100)) / 100
            finer = accuracy + draw.gauss(0, 0.02)
            trials.append(Played(name, {}, 0, 100, 1.0, seen, noise=0.04, finer=finer))
        right["score"] += max(trials, key=lambda one: one.score).contestant == "better"
        right["finer"] += best_first(trials)[0].contestant == "better"
    assert right["finer"] > right["score"] + 50
