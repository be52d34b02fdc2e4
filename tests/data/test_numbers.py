"""Remarks about regression targets are given, and their fix brings targets to where a head learns."""

from __future__ import annotations

import random
import re
import statistics

import pytest
from tests.conftest import encoder_tokenizer

from softprompt.data.encode import Encoder
from softprompt.data.numbers import expression, outliers, scaled
from softprompt.data.row_notes import remarks
from softprompt.data.task import ModelSide, Task
from softprompt.data.template import Template


def output(values, target="{{ target }}"):
    encoder = Encoder(
        encoder_tokenizer(), Template(target=target), Task("regression"), ModelSide("head", kind="encoder")
    )
    examples = encoder.encode_rows([{"input": f"a{i}", "target": v} for i, v in enumerate(values)])
    return {remark.kind: remark.text for remark in remarks(encoder, examples)}, [e.value for e in examples]


SPREAD = [i / 11 for i in range(12)]


@pytest.mark.parametrize(
    "values",
    [
        [150_000 + 300_000 * x for x in SPREAD],
        [1e-4 * x for x in SPREAD],
        [1000 + x for x in SPREAD],
        [-1000 - 0.1 * x for x in SPREAD],
        [50 + 0.5 * x for x in SPREAD],
        [-9e5 * x for x in SPREAD],
        [2e9 + 1e5 * x for x in SPREAD],
        [1990, 1991],
    ],
)
def test_the_scale_that_is_told_brings_targets_near(values):
    texts, _ = output(values)
    assert list(texts) == ["scale"]
    target = re.search(r'template\.target="(.*)"', texts["scale"])[1]
    texts, changed = output(values, target)
    assert texts == {}
    # near where a head starts, and reported apart; and the same but for a straight line
    assert max(map(abs, changed)) <= 10 and statistics.pstdev(changed) > 0.05
    assert statistics.correlation(values, changed) == pytest.approx(1)


@pytest.mark.parametrize("values", [SPREAD, [1, 2, 3, 4, 5], [-1, 1], [0, 100], [0.5, 0.6]])
def test_of_usual_targets_nothing_is_said(values):
    assert output(values)[0] == {}


def test_targets_that_are_all_the_same_number():
    assert output([3, "3.0", "3e0"])[0] == {"constant": "all targets are the same number, 3"}


def test_a_target_far_from_all_others_is_named_and_does_not_rule_the_scale():
    values = [*SPREAD, 5000, *SPREAD]
    texts, _ = output(values)
    assert list(texts) == ["outlier"] and "5000" in texts["outlier"] and "between 0 and 1" in texts["outlier"]
    texts, _ = output([1000 * x for x in values])
    assert list(texts) == ["outlier", "scale"] and "between 0 and 1000" in texts["scale"]


def test_no_outlier_is_found_in_usual_distributions():
    draw = random.Random(0)
    for kind in (draw.random, lambda: draw.gauss(0, 1), lambda: draw.expovariate(1)):
        assert outliers([kind() for _ in range(2000)]) == []
    assert outliers([1, 1, 1, 1, 9]) == []  # a rare class of numbers is none


def test_a_target_that_is_computed_is_told_without_a_field():
    texts, _ = output([1e6 * x for x in SPREAD], "{{ target | float + 1 }}")
    assert "your_field" in texts["scale"]
    assert scaled([0.0, 1.0]) is None and expression("x", -5.0, 10.0) == "{{ (x | float + 5) / 10 }}"
