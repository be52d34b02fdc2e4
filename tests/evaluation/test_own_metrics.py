"""Metrics of other packages: their scores, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from softprompt.errors import SoftPromptError
from softprompt.evaluation.metric_intervals import compute
from softprompt.evaluation.metrics import METRICS, Inputs, Metric


@pytest.fixture
def own():
    """`own(target)`: the metric 'own', for this test."""
    yield lambda target: METRICS.register("own", target)
    METRICS.pop("own", None)


def words(prediction: str, references: list[str]) -> float:
    return abs(len(prediction.split()) - len(references[0].split()))


def test_a_function_is_a_mean_over_the_examples(own):
    own(words)
    score = compute(["own"], ["a b", "c", "d e f"], [["x"], ["y"], ["z"]])["own"]
    assert score.value == (1 + 0 + 2) / 3 and score.low <= score.value <= score.high
    assert METRICS["own"].is_mean and METRICS["own"].higher_is_better


def test_a_metric_of_sums(own, monkeypatch):
    monkeypatch.setattr(words, "higher_is_better", False, raising=False)
    assert not own(words).higher_is_better
    squares = Metric(
        lambda inputs: np.array([[len(t), 1.0] for t in inputs.predictions]), lambda s: (s[0] / s[1]) ** 2
    )
    assert not own(squares).is_mean
    assert compute(["own"], ["a", "abc"], [["x"], ["y"]])["own"].value == 4.0


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (lambda text, references: float("nan"), "example 0 is not finite"),
        (lambda text, references: 1 / 0, "ZeroDivisionError"),
        (Metric(lambda inputs: np.ones(3), lambda sums: 1.0), "the shape [3], not [1, k]"),
    ],
)
def test_wrong_values_are_an_error(own, target, why):
    metric = own(target)
    with pytest.raises(SoftPromptError, match="metric 'own' failed") as caught:
        metric.stats(Inputs(["a"], [["b"]]))
    assert why in caught.value.why


def test_another_form_is_refused(own):
    for target in (3, dict):
        with pytest.raises(SoftPromptError, match="a metric is a function or a Metric"):
            own(target)
    with pytest.raises(SoftPromptError, match="it needs 'texts'"):
        own(Metric(len, float, needs="texts"))  # type: ignore[arg-type]
