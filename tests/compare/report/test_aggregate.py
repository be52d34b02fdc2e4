"""Means over seeds, the only thing that a report computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from softprompt.compare.report.aggregate import costs, main_split, quality
from softprompt.compare.report.schema import Comparison, Contestant, Score, Serving, Study, Trial


def score(value, low, high, seed):
    return Score("a", "test", {"accuracy": {"value": value, "low": low, "high": high, "n": 50}}, seed=seed)


@pytest.fixture
def found():
    return Comparison(Path("made"), Study("accuracy", [Contestant("a"), Contestant("b")]))


def test_the_mean_of_seeds_has_the_widest_interval(found):
    found.scores = [score(0.8, 0.7, 0.85, 0), score(0.9, 0.82, 0.95, 1)]
    one = quality(found, "test")["a"]
    assert one.value == pytest.approx(0.85) and (one.low, one.high) == (0.7, 0.95)
    assert one.seeds == (0.8, 0.9) and one.n == 50 and list(quality(found, "test")) == ["a"]


def test_a_score_over_all_seeds_is_taken_as_it_is(found):
    found.scores = [score(0.8, 0.7, 0.85, 0), score(0.9, 0.82, 0.95, 1), score(0.851, 0.8, 0.9, None)]
    one = quality(found, "test")["a"]
    assert (one.value, one.low, one.high) == (0.851, 0.8, 0.9) and one.seeds == (0.8, 0.9)


def test_costs_are_means_of_final_trials_that_ended(found):
    def trial(phase, status, seconds):
        return Trial("x", "a", phase, status, cost={"train_seconds": seconds, "flops": None})

    found.trials = [trial("search", "done", 100.0), trial("final", "failed", 50.0)]
    assert costs(found) == {"a": {"train_seconds": 100.0}}
    found.trials += [trial("final", "done", 1.0), trial("final", "done", 3.0)]
    found.servings = [Serving("a", added_tokens=7)]
    assert costs(found) == {"a": {"train_seconds": 2.0, "added_tokens": 7}}


def test_the_answer_is_about_the_test_rows_where_there_are_any(found):
    assert main_split(found) == "test"
    found.scores = [Score("a", "unseen", {})]
    assert main_split(found) == "unseen"
    found.scores.append(Score("a", "test", {}))
    assert main_split(found) == "test"


def test_an_interval_ends_where_the_metric_does(found):
    found.scores = [score(0.7, -1.8, 3.0, None)]
    one = quality(found, "test")["a"]
    assert (one.low, one.high) == (0.0, 1.0)
    found.scores = [Score("a", "test", {"perplexity": {"value": 3.0, "low": -1.0, "high": 7.0, "n": 5}})]
    one = quality(found, "test", "perplexity")["a"]
    assert (one.low, one.high) == (-1.0, 7.0)
