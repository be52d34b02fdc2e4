"""Intervals agree with the corrected tests, and differences that no rows could show are reported."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from softprompt.compare.measures import quality
from softprompt.compare.measures.quality import CandidateRows
from softprompt.evaluation.stats.power import fewest_rows
from softprompt.evaluation.stats.scores import Scores
from softprompt.evaluation.stats.significance import compare
from softprompt.page.numbers import unit


def of_methods(means, *, seeds=3, rows=80, seed_sd=0.05, kind="normal", seed=0) -> list[Scores]:
    rng = np.random.default_rng(seed)
    row = rng.normal(0, 1, rows)
    found = []
    for number, mean in enumerate(means):
        x = mean + row + rng.normal(0, 0.4, (seeds, rows)) + rng.normal(0, seed_sd, (seeds, 1))
        found.append(Scores(str(number), (x > 0) * 1.0 if kind == "right or wrong" else x))
    return found


@pytest.mark.parametrize("kind", ["normal", "right or wrong"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_an_interval_leaves_out_zero_exactly_where_its_test_shows_a_difference(seeds, kind):
    shown = []
    for seed in range(3):
        means = [0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.8]
        of = of_methods(means, seeds=seeds, kind=kind, seed=seed)
        found = compare(of, resamples=2000)
        assert [c.low > 0 or c.high < 0 for c in found] == [c.significant for c in found]
        assert all(c.low <= c.difference <= c.high for c in found)
        shown += [c.significant for c in found]
    assert 5 < sum(shown) < len(shown) - 5  # or the above would tell little


def test_the_intervals_of_many_pairs_are_bonferronis():
    """One seed, normal differences: Student's interval at 0.05 / pairs is nearly the same."""
    of = of_methods([0, 0.02, 0.04, 0.06], seeds=1, rows=300)
    for pair in compare(of, resamples=20_000):
        rows = of[int(pair.a)].values[0] - of[int(pair.b)].values[0]
        assert pair.level == pytest.approx(1 - 0.05 / 6, abs=1e-9) or pair.significant
        bounds = stats.ttest_1samp(rows, 0).confidence_interval(pair.level)
        assert (pair.low, pair.high) == pytest.approx((bounds.low, bounds.high), abs=0.012)
        assert pair.low < pair.alone_low < pair.alone_high < pair.high


def test_one_pair_has_the_usual_interval():
    (pair,) = compare(of_methods([0, 0.1]))
    assert pair.level == pytest.approx(0.95)
    assert (pair.low, pair.high) == pytest.approx((pair.alone_low, pair.alone_high), abs=0.03)


def answers(right: np.ndarray) -> list[dict]:
    return [
        {"prediction": "a" if one else "b", "references": ["a"], "nll": 1.0 + float(one), "tokens": 1}
        for one in right
    ]


def entries(rows: int, methods: int, seeds: int = 3) -> list[CandidateRows]:
    rng = np.random.default_rng(1)
    return [
        CandidateRows(str(m), [answers(rng.random(rows) < rng.uniform(0.1, 0.9)) for _ in range(seeds)])
        for m in range(methods)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "exact_match", "chrf", "bleu", "perplexity"])
def test_no_difference_is_called_detectable_that_the_metric_cannot_have(metric):
    """Two seeds that differ much, of ten methods: nothing that accuracy can be would be shown."""
    tests, _ = quality.decisive(entries(8, 6, seeds=2), metric, 2.0, "test")
    found = [SimpleNamespace(**test) for test in tests]
    most = {"chrf": 100, "bleu": 100, "perplexity": np.inf}.get(metric, 1)
    assert unit(metric).span == most
    for pair in found:
        assert pair.detectable is None or pair.detectable <= most
        assert -most <= pair.low <= pair.difference <= pair.high <= most
        assert pair.significant == (pair.low > 0 or pair.high < 0)
    if metric == "accuracy":
        assert not all(pair.shows_any for pair in found)


def test_a_perplexity_is_not_capped():
    rng = np.random.default_rng(0)
    values = [np.exp(rng.normal(7, 2, (2, 30))) for _ in range(3)]
    found = compare([Scores(str(m), x) for m, x in enumerate(values)], span=unit("perplexity").span)
    assert all(pair.shows_any and pair.detectable is not None for pair in found)
    assert max(pair.detectable or 0 for pair in found) > 100


def test_too_few_rows_show_nothing_whatever_the_difference():
    """Of n rows the signs have 2^n orders, of which two are as far apart as can be."""
    assert fewest_rows(0.05) == 6 and 2 / 2**6 <= 0.05 < 2 / 2**5
    right, wrong = (Scores(n, np.full((1, 4), v)) for n, v in (("right", 1.0), ("wrong", 0.0)))
    (pair,) = compare([right, wrong], span=1.0)
    assert not pair.significant and not pair.shows_any and pair.detectable is None
    assert pair.low <= 0 and (pair.low, pair.high) == (-1.0, 1.0)


def test_scores_that_agree_everywhere_tell_nothing_of_noise():
    (pair,) = compare([Scores(n, np.tile([0.0, 1.0], (1, 10))) for n in "ab"], span=1.0)
    assert pair.detectable is None and pair.shows_any
