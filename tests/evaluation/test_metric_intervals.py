"""Intervals are compared with closed forms and with naive bootstraps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from softprompt.errors import SoftPromptError
from softprompt.evaluation.metric_intervals import compute
from softprompt.evaluation.metrics import METRICS, Inputs


@pytest.mark.parametrize("name", ["bleu", "chrf", "macro_f1"])
def test_resampled_sums_score_as_the_resampled_corpus_does(name, ragged):
    predictions, references = ragged
    if name == "macro_f1":
        predictions = [text.split()[0] for text in predictions]
        references = [[texts[0].split()[1]] for texts in references]
    metric = METRICS[name]
    stats = np.asarray(metric.stats(Inputs(predictions, references)), dtype=float)
    rng = np.random.default_rng(3)
    for _ in range(5):
        rows = rng.integers(len(predictions), size=len(predictions))
        direct = compute([name], [predictions[i] for i in rows], [references[i] for i in rows], resamples=0)
        assert metric.score(stats[rows].sum(axis=0)) == pytest.approx(direct[name].value)


def test_accuracy_interval_is_the_binomial_one():
    n, right = 500, 400
    score = compute(["accuracy"], ["y"] * right + ["x"] * (n - right), [["y"]] * n, resamples=4000)[
        "accuracy"
    ]
    half = 1.96 * math.sqrt(0.8 * 0.2 / n)
    assert score.value == pytest.approx(0.8)
    assert score.low == pytest.approx(0.8 - half, abs=0.006)
    assert score.high == pytest.approx(0.8 + half, abs=0.006)


def test_the_seed_decides_and_one_example_has_no_width(sentences):
    texts, references = sentences(30, 5), [[text] for text in sentences(30, 6)]
    assert compute(["chrf"], texts, references) == compute(["chrf"], texts, references)
    assert compute(["chrf"], texts, references) != compute(["chrf"], texts, references, seed=1)
    one = compute(["chrf", "rouge_l"], texts[:1], references[:1])
    assert all(score.low == score.value == score.high and score.n == 1 for score in one.values())


def test_intervals_do_not_depend_on_how_many_draws_are_held_at_once(monkeypatch, sentences):
    texts, references = sentences(30, 5), [[text] for text in sentences(30, 6)]
    whole = compute(["rouge_l"], texts, references)
    monkeypatch.setattr("softprompt.evaluation.metric_intervals._DRAWS_AT_ONCE", 100)
    assert compute(["rouge_l"], texts, references) == whole


def test_bad_input_is_refused():
    with pytest.raises(SoftPromptError, match="did you mean 'accuracy'"):
        compute(["acuracy"], ["a"], [["a"]])
    with pytest.raises(SoftPromptError, match="no examples"):
        compute(["accuracy"], [], [])
    with pytest.raises(SoftPromptError, match="example 1 has no reference"):
        compute(["accuracy"], ["a", "b"], [["a"], []])
    with pytest.raises(SoftPromptError, match="different lengths"):
        compute(["accuracy"], ["a"], [["a"], ["b"]])
    with pytest.raises(SoftPromptError, match="needs log-likelihoods"):
        compute(["perplexity"], [], [])
