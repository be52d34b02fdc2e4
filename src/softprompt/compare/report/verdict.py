"""Applies the rule (`decision`) to a comparison's files, and adds the references. `summary` words it.

A method is called better than another only where their test says so; a pair without a test, or with one
that is not significant, has no difference shown.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...page.numbers import unit
from .aggregate import Quality, costs, main_split, quality
from .approximate import draws
from .decision import Decision, decide, is_equal, margin_of, standings
from .schema import Comparison, PairTest, Standing


@dataclass(frozen=True)
class Verdict:
    """The decision between the methods that were trained, and the chosen one's tests against references.

    References of `matched` equal every method that could be taken, so that training brought less than the
    margin. `is_approximate` says that the files have no resampled scores, only intervals of pairs.
    """

    decision: Decision
    scores: dict[str, Quality]
    costs: dict[str, dict[str, float]]
    beaten_by: list[PairTest]
    matched: list[PairTest]
    not_beaten: list[PairTest]
    beaten: list[PairTest]
    is_approximate: bool

    @property
    def chosen(self) -> str:
        """Return the method that is named."""
        return self.decision.chosen


def verdict(comparison: Comparison) -> Verdict | None:
    """None where no method that was trained has a score."""
    split, higher = main_split(comparison), comparison.study.higher_is_better
    scores, cost = quality(comparison, split), costs(comparison)
    names = [item.name for item in comparison.methods if item.name in scores]
    if not names:
        return None
    values = {name: scores[name].value for name in names}
    margin = margin_on(comparison, split, comparison.study.metric)
    standing, is_approximate = _standings(comparison, split, names, margin)
    decision = decide(
        values,
        _tests(comparison, split),
        standing,
        {name: price(cost, name) for name in names},
        margin=margin,
        higher_is_better=higher,
        ranks={name: _rank(comparison, name) for name in names},
    )
    tests = against_references(comparison, decision.chosen)
    beaten_by = [t for t in tests if t.significant and gain(comparison, t) < 0]
    matched = [t for t in tests if decision.tells and _matches(comparison, decision, t.b)]
    rest = [t for t in tests if t not in matched]
    return Verdict(
        decision=decision,
        scores=scores,
        costs=cost,
        beaten_by=beaten_by,
        matched=matched,
        not_beaten=[t for t in rest if not t.significant],
        beaten=[t for t in rest if t.significant and gain(comparison, t) > 0],
        is_approximate=is_approximate,
    )


def _standings(
    comparison: Comparison, split: str, names: Sequence[str], margin: float
) -> tuple[dict[str, Standing], bool]:
    """Return the standings that the files hold, or those that the pairs' intervals give."""
    metric, higher = comparison.study.metric, comparison.study.higher_is_better
    held = [s for s in comparison.standings if s.split == split and s.metric == metric]
    is_approximate = not held
    if is_approximate and (drawn := draws(names, _tests(comparison, split))):
        held = standings(drawn, split=split, metric=metric, margin=margin, higher_is_better=higher)
    return {item.contestant: item for item in held}, is_approximate


def margin_on(comparison: Comparison, split: str, metric: str) -> float:
    """Return the margin within which methods are equal, in the metric's own numbers."""
    scores = quality(comparison, split, metric)
    values = [scores[item.name].value for item in comparison.methods if item.name in scores]
    best = max if comparison.study.higher_is_better else min
    return margin_of(metric, comparison.study.margin, best(values, default=0.0))


def _tests(comparison: Comparison, split: str) -> list[PairTest]:
    return [t for t in comparison.tests if t.split == split and t.metric == comparison.study.metric]


def _matches(comparison: Comparison, decision: Decision, reference: str) -> bool:
    """Return whether a reference equals each of the methods that are equal among themselves."""
    tests = [pair(comparison, main_split(comparison), name, reference) for name in decision.equals]
    return all(test is not None and is_equal(test, decision.margin) for test in tests)


def price(cost: dict[str, dict[str, float]], name: str) -> tuple[float, float]:
    """Seconds to train, then trained parameters; what was not measured counts as dearest."""
    known = cost.get(name, {})
    return known.get("train_seconds", math.inf), known.get("trained_parameters", math.inf)


def pair(comparison: Comparison, split: str, a: str, b: str) -> PairTest | None:
    """The test of a against b on the study's metric, turned so that a comes first."""
    for test in _tests(comparison, split):
        if {test.a, test.b} == {a, b}:
            return test if test.a == a else turned(test)
    return None


def turned(test: PairTest) -> PairTest:
    """Return the same test with a and b exchanged."""
    low, high, alone_low, alone_high = (
        None if x is None else -x for x in (test.high, test.low, test.alone_high, test.alone_low)
    )
    other = None if test.chance is None else 1 - test.chance
    bounds = {"low": low, "high": high, "alone_low": alone_low, "alone_high": alone_high}
    return replace(test, a=test.b, b=test.a, difference=-test.difference, chance=other, **bounds)


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
