"""The answer of a pilot: the rule of a comparison on the dev rows of each method's best trial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from softprompt.recommend.pilot_answer import answer_of
from softprompt.recommend.pilot_order import PilotTrial, named_first

STUDY = {"metric": "accuracy", "higher_is_better": True, "margin": 2.0, "rows": {"dev": 20}}


def record(name, right, seconds=10.0, steps=50, **changes):
    """The record of a trial that answered these rows right or wrong."""
    rows = [
        {"references": ["yes"], "prediction": "yes" if hit else "no", "nll": 1.0, "tokens": 1}
        for hit in right
    ]
    made = {"id": name, "contestant": name, "phase": "search", "status": "done", "seed": 0, "rows": 30}
    made |= {"settings": {}, "error": None, "about": {}, "dev": {"accuracy": float(np.mean(right))}}
    made |= {"dev_rows": rows, "steps": steps, "cost": {"train_seconds": seconds}}
    return made | changes


def of(count, rows=20, seed=0):
    return np.random.default_rng(seed).permutation(np.arange(rows) < count)


def test_the_cheaper_is_not_named_where_no_difference_was_shown():
    best = [record("cheap", of(9), seconds=1.0), record("slow", of(13, seed=1))]
    answer = answer_of(STUDY, best, Path())
    assert answer.method == "slow" and answer.decision is not None and not answer.decision["tells"]
    assert answer.headline.startswith("These rows do not tell which method is best: slow is the likeliest (")
    assert "on 20 dev rows" in answer.sentences[0] and "dev rows would tell" in answer.sentences[-1]


def test_the_cheaper_of_equals_is_named_by_the_seconds_of_as_many_steps():
    """The trial of 6 seconds had 20 steps: with 50 it would take 15."""
    right = np.arange(1000) % 5 > 0
    other = right.copy()
    other[[0, 1, 5, 6]] = ~other[[0, 1, 5, 6]]
    best = [record("early", right, 6.0, steps=20, status="pruned"), record("whole", other, 10.0)]
    answer = answer_of(STUDY, best, Path())
    assert (answer.method, answer.headline) == ("whole", "Take whole")
    assert "(10 s to train; the other 15 s)" in answer.sentences[0]


def test_a_better_reference_is_kept_and_a_method_is_named_for_its_recipe():
    best = [record("few-shot", of(180, 200), cost={}, examples=None), record("lora", of(100, 200, seed=1))]
    best[0]["examples"] = best[0].pop("dev_rows")
    answer = answer_of(STUDY, best, Path())
    assert (answer.method, answer.headline) == ("lora", "Keep few-shot")


def test_records_of_an_earlier_version_are_not_tested():
    best = [record("a", of(9)), record("b", of(13))]
    del best[0]["dev_rows"]
    answer = answer_of(STUDY, best, Path())
    assert answer.method == "b" and answer.headline.endswith("b has the highest score")
    assert "No test compared b with a." in answer.sentences


def test_nothing_scored():
    answer = answer_of(STUDY, [record("few-shot", of(9))], Path())
    assert answer.method is None and answer.headline == "No answer yet"


@pytest.mark.parametrize(("name", "order"), [("b", "few b a"), ("a", "few a b"), (None, "few a b")])
def test_the_named_method_is_the_first_that_is_trained(name, order):
    trials = [PilotTrial(each, {}, 1, 1, 1.0, 1, "done", 0.5, 0.0, (0.5,)) for each in ("few-shot", "a", "b")]
    names = [trial.contestant.split("-")[0] for trial in named_first(trials, name)]
    assert " ".join(names) == order
