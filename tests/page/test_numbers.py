"""Numbers for people, and axes with round numbers."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.evaluation.metrics import METRICS
from softprompt.page import numbers, scales


def test_every_metric_has_a_way_to_be_written():
    neither = {"perplexity", "mse", "pearson", "spearman", "kl"}
    neither |= {"reward_margin", "chosen_reward", "rejected_reward"}
    assert numbers.SHARES | numbers.POINTS | neither == set(METRICS)


@pytest.mark.parametrize(
    ("metric", "value", "output", "difference"),
    [
        ("accuracy", 0.84062, "84.1 %", "84.1 points"),
        ("accuracy", -0.0001, "0.0 %", "0.0 points"),
        ("accuracy", -0.019, "−1.9 %", "−1.9 points"),
        ("chrf", 57.64, "57.6", "57.6 points"),
        ("perplexity", 10.153, "10.2", "10.2"),
        ("perplexity", 1234.5, "1,234", "1,234"),
        ("accuracy", None, "–", "–"),
    ],
)
def test_metrics(metric, value, output, difference):
    unit = numbers.unit(metric)
    assert unit.value(value).replace("\u00a0", " ") == output
    assert unit.difference(value) == difference


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (numbers.seconds(0.25), "250 ms"),
        (numbers.seconds(38.4), "38 s"),
        (numbers.seconds(200), "3 min 20 s"),
        (numbers.seconds(5400), "1 h 30 min"),
        (numbers.size(46_080), "46.1 kB"),
        (numbers.size(999.9), "1 kB"),
        (numbers.short(1_192_896), "1.19 M"),
        (numbers.about(2345.6), "2,300"),
        (numbers.about(7), "7"),
        (numbers.p_value(0.0004), "< 0.001"),
        (numbers.listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_quantities(output, expected):
    assert output == expected


finite = st.floats(-1e9, 1e9).map(lambda x: round(x, 6))


@given(st.lists(finite, min_size=1, max_size=20))
def test_linear_axes_hold_every_value_with_a_few_round_ticks(values):
    scale = scales.linear(values, 10, 510)
    assert all(10 - 1e-6 <= scale(value) <= 510 + 1e-6 for value in values)
    assert 1 <= len(scale.ticks) <= 8
    assert all(10 - 1e-6 <= scale(tick) <= 510 + 1e-6 for tick in scale.ticks)
    if len(scale.ticks) > 1:
        step = scale.ticks[1] - scale.ticks[0]
        first = step / 10 ** math.floor(math.log10(step * 1.0001))
        assert min(abs(first - round_one) for round_one in (1, 2, 2.5, 5)) < 0.01


@given(st.lists(st.just(0.0) | st.floats(1e-6, 1e18), min_size=1, max_size=12))
def test_cost_axes_hold_every_value_and_keep_zeros_apart(values):
    scale = scales.positive(values, 10, 510)
    places = [scale(value) for value in sorted(values)]
    assert all(10 - 1e-6 <= place <= 510 + 1e-6 for place in places) and places == sorted(places)
    if scale.logarithmic and scale.zero is not None:
        assert scale.zero < min(scale(value) for value in values if value > 0)


@given(st.lists(st.floats(0, 300), min_size=1, max_size=10))
def test_labels_are_moved_apart(places):
    moved = scales.spread(places, 15, 0, 300)
    ordered = sorted(moved)
    assert all(b - a > 14.99 for a, b in itertools.pairwise(ordered))
    assert max(moved) <= 300
