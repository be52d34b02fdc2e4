"""Dev scores by seconds: the curves, who leads when, and the words for time that was not equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from softprompt.compare.report import progress
from softprompt.compare.report.schema import Comparison, Contestant, Spent, Study, Trial
from softprompt.compare.report.sections import time
from softprompt.page.blocks import Figure, Table


def final(name: str, seed: int, history: list[tuple[int, float, float]], phase: str = "final") -> Trial:
    entries = [{"step": step, "seconds": s, "accuracy": value} for step, s, value in history]
    return Trial(f"{name}{seed}", name, phase, "done", seed=seed, history=entries)


def made(higher: bool = True, times: bool = True) -> Comparison:
    """A quick learner that stays at 0.7, and a slow one that ends at 0.9, with two seeds each."""
    study = Study("accuracy", [Contestant("quick"), Contestant("slow")], higher_is_better=higher)
    trials = [
        final("quick", 0, [(10, 1.0, 0.7), (50, 5.0, 0.6), (100, 10.0, 0.7)]),
        final("quick", 1, [(10, 3.0, 0.5), (50, 7.0, 0.7), (100, 10.0, 0.7)]),
        final("slow", 0, [(2, 2.0, 0.2), (10, 10.0, 0.9)]),
        final("slow", 1, [(2, 2.0, 0.4), (10, 10.0, 0.9)]),
        final("slow", 0, [(2, 2.0, 1.0), (10, 10.0, 1.0)], phase="search"),
    ]
    spent = [Spent("quick", 100, 99.0, 100, 104.0, 84.0, 20.0, 4.0), Spent("slow", 100, 98.0, 10, 150.0)]
    return Comparison(Path("x"), study, trials, times=spent if times else [])


def test_a_curve_is_the_mean_of_the_best_so_far_over_seeds():
    curves = progress.of_trainings(made())
    quick = [(p.seconds, p.value, p.low, p.high) for p in curves["quick"]]
    assert quick == [(2.0, 0.6, 0.5, 0.7), (6.0, 0.7, 0.7, 0.7), (10.0, 0.7, 0.7, 0.7)]
    assert [p.value for p in curves["slow"]] == [pytest.approx(0.3), 0.9]
    lower = progress.of_trainings(made(higher=False))
    assert [p.value for p in lower["quick"]] == [pytest.approx(0.6), pytest.approx(0.55), pytest.approx(0.55)]


def test_a_seed_that_ended_early_keeps_its_last_score():
    comparison = made()
    comparison.trials[1] = final("quick", 1, [(10, 3.0, 0.5)])
    assert progress.of_trainings(comparison)["quick"][-1].low == 0.5


def test_the_seconds_of_a_method_are_those_of_all_its_trainings():
    curves = progress.of_methods(made())
    # 4 s of caches, and a fifth of the 100 s of steps after a fifth of a final run
    assert [p.seconds for p in curves["quick"]] == pytest.approx([24.0, 64.0, 104.0])
    assert [p.seconds for p in curves["slow"]] == pytest.approx([30.0, 150.0])
    assert progress.of_methods(made(times=False)) == {}


def test_who_leads_when():
    comparison = made()
    curves = progress.of_methods(comparison)
    assert progress.marks(comparison, curves) == [(0.1, 10.0), (0.3, 30.0), (1.0, 100.0)]
    lead = [progress.leaders(comparison, curves, *mark) for mark in progress.marks(comparison, curves)]
    assert lead == [["quick"], ["quick"], ["slow"]]  # slow has its first score after a fifth of its steps
    assert progress.at(comparison, curves["slow"], 0.1, 10) is None
    words, block, *_ = time.section(comparison).blocks
    assert words.text.endswith("at 10 s quick; at 30 s quick; at 1 min 40 s slow.")
    assert isinstance(block, Figure) and [p.label for p in block.panels] == [time.WHOLE, time.ONE]
    assert list(block.table.rows[0]) == ["leads", "quick", "quick", "slow"]
    assert list(block.table.columns) == ["method", "10 s", "30 s", "1 min 40 s, the end"]


def test_time_that_was_not_equal_is_put_into_words():
    words = time.deviations(made())
    assert len(words) == 1 and words[0].startswith(
        "slow took 53\u00a0% more time than planned: the machine was"
    )
    comparison = made()
    comparison.times[0] = Spent("quick", 100, 99.0, 100, 50.0, failed=2)
    assert "2 of its trials failed" in time.deviations(comparison)[0]
    table = time.section(made()).blocks[2]
    assert isinstance(table, Table) and table.rows[1][-1] == "+53\u00a0%"


def test_equal_steps_and_old_folders_have_what_is_known():
    steps = time.section(made(times=False))
    assert len(steps.blocks) == 2 and [p.label for p in steps.blocks[1].panels] == [time.ONE]
    assert "10 s, the end" in steps.blocks[1].table.columns
    old = made(times=False)
    for trial in old.trials:
        for entry in trial.history:
            del entry["seconds"]
    (text,) = time.section(old).blocks
    assert "not recorded" in text.text
