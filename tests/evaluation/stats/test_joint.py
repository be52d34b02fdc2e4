"""Draws of all methods together, bounds of rare differences, and the standings that come of draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from softprompt.compare.report.decision import standings
from softprompt.evaluation.stats import rare
from softprompt.evaluation.stats.bootstrap import row_draws
from softprompt.evaluation.stats.joint import joint_draws
from softprompt.evaluation.stats.scores import Scores
from softprompt.evaluation.stats.significance import compare


def methods(count: int, seeds: int, rows: int = 60, seed_sd: float = 0.2) -> list[Scores]:
    rng = np.random.default_rng(count + seeds)
    row = rng.normal(0, 1, rows)
    x = [row + rng.normal(0, 0.5, (seeds, rows)) + rng.normal(0, seed_sd, (seeds, 1)) for _ in range(count)]
    return [Scores(str(m), (values > 0) * 1.0) for m, values in enumerate(x)]


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_the_difference_of_two_methods_is_drawn_as_for_their_own_interval(seeds):
    of = methods(2, seeds)
    drawn = joint_draws(of, row_draws(of, 10_000, 0))
    (pair,) = compare(of, span=1.0)
    low, high = np.percentile(drawn[:, 0] - drawn[:, 1], [5, 95])
    width = pair.alone_high - pair.alone_low
    assert pair.alone_low < low < high < pair.alone_high
    low, high = np.percentile(drawn[:, 0] - drawn[:, 1], [2.5, 97.5])
    assert (low, high) == pytest.approx((pair.alone_low, pair.alone_high), abs=0.08 * width)


def test_a_method_without_seeds_has_noise_of_rows_alone():
    of = [*methods(2, 3), Scores("fixed", methods(1, 1)[0].values, fixed=True)]
    rows = row_draws(of, 2000, 0)
    drawn = joint_draws(of, rows)
    assert (drawn[:, 2] == rows[:, 2]).all() and (drawn[:, 0] != rows[:, 0]).all()


def test_methods_that_agree_on_a_few_rows_are_not_drawn_as_equal():
    """With few rows a difference of more than two points is likely to exist; with 3,000 it is not."""
    for rows, low, high in ((4, 0.0, 0.4), (3000, 0.99, 1.0)):
        right = np.resize([1.0, 1.0, 0.0], (1, rows))
        of = [Scores("a", right), Scores("b", right)]
        drawn = joint_draws(of, row_draws(of, 2000, 0), span=1.0)
        assert low < (np.abs(drawn[:, 0] - drawn[:, 1]) <= 0.02).mean() <= high
    of = methods(2, 1)  # differ on many rows
    rows = row_draws(of, 100, 0)
    assert (joint_draws(of, rows, span=1.0) == rows).all()


@pytest.mark.parametrize("higher", [True, False])
def test_standings_against_their_definitions(higher):
    drawn = np.random.default_rng(0).integers(0, 6, (500, 3)) / 5.0
    by_name = {name: drawn[:, m].tolist() for m, name in enumerate("abc")}
    held = standings(by_name, split="test", metric="accuracy", margin=0.2, higher_is_better=higher)
    for m, item in enumerate(held):
        best = drawn.max(axis=1) if higher else drawn.min(axis=1)
        share = [(row[m] == top) / (row == top).sum() for row, top in zip(drawn, best, strict=True)]
        assert item.best == pytest.approx(np.mean(share))
        assert item.within == pytest.approx((np.abs(best - drawn[:, m]) <= 0.2 + 1e-9).mean())
        assert item.loss == pytest.approx(np.abs(best - drawn[:, m]).mean())
    assert sum(item.best for item in held) == pytest.approx(1.0)


def test_the_same_answers_to_few_rows_are_no_equality():
    """None of N rows differs with chance 0.025 where a share of -ln(0.025) / N of all rows does."""
    same = np.ones((1, 20))
    (pair,) = compare([Scores("a", same), Scores("b", same)], span=1.0, margin=0.02)
    bound = -np.log(0.025) / 20
    assert (pair.low, pair.high) == pytest.approx((-bound, bound), rel=1e-6)
    assert pair.rows_to_tell == np.ceil(-np.log(0.025) / 0.02)


def test_bounds_of_rare_differences_are_exact_poisson_bounds_where_one_side_has_none():
    difference = np.zeros(100)
    difference[:4] = 1.0
    bounds = rare.widest(difference, 1.0, 0.05)
    assert bounds is not None
    exact = stats.chi2.ppf(0.975, 10) / 2  # of four events (Garwood)
    assert bounds[1] == pytest.approx(exact / 100)
    assert rare.widest(difference, np.inf, 0.05) is None
    assert rare.widest(np.ones(30), 1.0, 0.05) is None


def test_intervals_of_methods_that_seldom_differ_hold_the_true_difference():
    """One row of a hundred is better under a; of 100 rows a third shows no difference at all."""
    rng, held, sets = np.random.default_rng(1), 0, 200
    for _ in range(sets):
        b = rng.random((1, 100)) < 0.7
        a = b | (rng.random((1, 100)) < 0.01 / 0.3)
        (pair,) = compare([Scores("a", a * 1.0), Scores("b", b * 1.0)], resamples=500, span=1.0)
        held += pair.low <= 0.01 <= pair.high
    assert held / sets >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / sets)
