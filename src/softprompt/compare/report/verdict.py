"""Decides which method to take: what the tests showed, and among equals the cheapest. `summary` words it.

A method is called better than another only where their test says so; a pair without a test, or with one
that is not significant, has no difference shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...page.numbers import unit
from .aggregate import Quality, costs, main_split, quality
from .schema import Comparison, PairTest


@dataclass(frozen=True)
class Verdict:
    """`equals` holds the methods among which no difference was shown, `chosen` and `best` with them.

    The chosen one is the cheapest of those of them that were shown to beat the most references.
    """

    chosen: str
    best: str
    equals: list[str]
    cheapest: bool
    others: list[str]
    scores: dict[str, Quality]
    costs: dict[str, dict[str, float]]
    beaten_by: list[PairTest]
    not_beaten: list[PairTest]
    beaten: list[PairTest]


def verdict(comparison: Comparison) -> Verdict | None:
    """None where no method that was trained has a score."""
    split = main_split(comparison)
    scores, cost = quality(comparison, split), costs(comparison)
    names = [item.name for item in comparison.methods if item.name in scores]
    if not names:
        return None
    sign = 1 if comparison.study.higher_is_better else -1
    best = max(names, key=lambda name: sign * scores[name].value)
    equals = [name for name in names if not shown_better(comparison, split, best, name)]
    equals = [
        name for name in equals if not any(shown_better(comparison, split, item, name) for item in equals)
    ]
    ranks = {name: _rank(comparison, name) for name in equals}
    safest = [name for name in equals if ranks[name] == min(ranks.values())]
    chosen = min(safest, key=lambda name: (*price(cost, name), -sign * scores[name].value))
    tests = against_references(comparison, chosen)
    return Verdict(
        chosen=chosen,
        best=best,
        equals=equals,
        cheapest=price(cost, chosen) == min(price(cost, name) for name in equals),
        others=[name for name in names if name not in equals],
        scores=scores,
        costs=cost,
        beaten_by=[t for t in tests if t.significant and gain(comparison, t) < 0],
        not_beaten=[t for t in tests if not t.significant],
        beaten=[t for t in tests if t.significant and gain(comparison, t) > 0],
    )


def price(cost: dict[str, dict[str, float]], name: str) -> tuple[float, float]:
    """Seconds to train, then trained parameters; what was not measured counts as dearest."""
    known = cost.get(name, {})
    return known.get("train_seconds", math.inf), known.get("trained_parameters", math.inf)


def pair(comparison: Comparison, split: str, a: str, b: str) -> PairTest | None:
    """The test of a against b on the study's metric, turned so that a comes first."""
    for test in comparison.tests:
        if test.split == split and test.metric == comparison.study.metric and {test.a, test.b} == {a, b}:
            return test if test.a == a else turned(test)
    return None


def turned(test: PairTest) -> PairTest:
    """Return the same test with a and b exchanged."""
    low, high = (None if x is None else -x for x in (test.high, test.low))
    return replace(test, a=test.b, b=test.a, difference=-test.difference, low=low, high=high)


def could_show(test: PairTest) -> bool:
    """Return whether these rows and seeds could have shown any difference that the metric can have."""
    within = test.detectable is None or test.detectable <= unit(test.metric).span
    return test.significant or (test.shows_any and within)


def against_references(comparison: Comparison, name: str) -> list[PairTest]:
    """The tests of a method against each reference."""
    tests = [pair(comparison, main_split(comparison), name, item.name) for item in comparison.references]
    return [test for test in tests if test is not None]


def _rank(comparison: Comparison, name: str) -> tuple[int, int]:
    """Count the references that were shown to be better, and those that the method was not shown to beat."""
    tests = against_references(comparison, name)
    lost = sum(test.significant and gain(comparison, test) < 0 for test in tests)
    return lost, sum(not (test.significant and gain(comparison, test) > 0) for test in tests)


def gain(comparison: Comparison, test: PairTest) -> float:
    """The difference with the sign that makes more of it better."""
    return test.difference if comparison.study.higher_is_better else -test.difference


def shown_better(comparison: Comparison, split: str, a: str, b: str) -> bool:
    """Return whether a test showed that a is better than b."""
    test = pair(comparison, split, a, b) if a != b else None
    return test is not None and test.significant and gain(comparison, test) > 0


def strongest(comparison: Comparison, tests: Sequence[PairTest]) -> PairTest:
    """Return the test with the smallest gain."""
    return min(tests, key=lambda test: gain(comparison, test))
