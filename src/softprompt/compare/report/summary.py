"""Writes what limits a comparison, and what each test showed; `answer` writes the answer."""

from __future__ import annotations

from ...page.numbers import Unit, about, listed, probability, several, unit
from .aggregate import Quality, main_split, splits
from .decision import is_equal
from .limits import merged, unmeasurable
from .schema import Comparison, PairTest
from .verdict import Verdict, could_show, gain, margin_on, shown_better, strongest, turned

#: More names than these are counted, not listed.
FEW = 5


def _needed(test: PairTest) -> str:
    now = "" if could_show(test) else "; these rows cannot show any"
    return now + (
        "" if test.rows_needed is None else f"; about {about(test.rows_needed)} rows could show one"
    )


def score_text(u: Unit, score: Quality | None) -> str:
    """Write as `84.1 % (81.6 … 86.4)`."""
    return "–" if score is None else u.value(score.value) + u.interval(score.low, score.high)


def gain_text(comparison: Comparison, test: PairTest, u: Unit) -> str:
    """The gain with its interval, both so that more is better: `1.9 points (0.4 … 3.5)`.

    Bounds stay within what a difference can be. An interval of a file written before is of the pair alone,
    which is noted where it leaves out 0 and the corrected test shows nothing.
    """
    span = unit(test.metric).span
    low, high = (None if x is None else min(max(x, -span), span) for x in (test.low, test.high))
    if not comparison.study.higher_is_better and low is not None and high is not None:
        low, high = -high, -low
    interval = u.interval(low, high)
    if interval and test.level is None and not test.significant and (low > 0 or high < 0):  # type: ignore
        interval = interval.replace(")", " for this pair alone)")
    return u.difference(gain(comparison, test)) + interval


def outcome_text(comparison: Comparison, test: PairTest, first: str | None = None) -> tuple[str, str]:
    """Say what a test showed, and by how much the method that is named first is better.

    The better one is named first where a difference was shown, otherwise `first`, or who scored more.
    Where none was shown, the two are equal only if the interval is within the margin.
    """
    u = unit(test.metric)
    lead = gain(comparison, test)
    if ((test.significant or first not in (test.a, test.b)) and lead < 0) or (
        not test.significant and first == test.b
    ):
        test = turned(test)
    by = gain_text(comparison, test, u)
    if test.significant:
        return f"{test.a} is better than {test.b} by {by}", by
    margin = margin_on(comparison, test.split, test.metric)
    if is_equal(test, margin):
        return f"{test.a} and {test.b} are equal within {margin_text(u, margin)}", by
    return f"No difference was shown between {test.a} and {test.b}{_needed(test)}", by


def margin_text(u: Unit, margin: float) -> str:
    """Write as `2 points`; of a metric without a range as its own number."""
    return f"{margin * u.scale:.4g}{u.points}"


def notes(comparison: Comparison, verdict: Verdict | None) -> list[str]:
    """List what limits the answer, the most important first."""
    notes = [
        f"The {split} rows cannot measure quality: {why}. Read nothing from the scores and tests on them."
        for split in splits(comparison)
        if (why := unmeasurable(comparison, split)) is not None
    ]
    if verdict is not None:
        if verdict.not_beaten:
            near = strongest(comparison, verdict.not_beaten)
            better = "" if near.chance is None else f" ({near.a} is better with {probability(near.chance)})"
            text = f"No difference from {near.b}, which needs no tuning, was shown{better}{_needed(near)}."
            notes.append(text)
        notes += _unseen(comparison, verdict)
        if verdict.is_approximate and verdict.decision.standings and not verdict.decision.tells:
            notes.append(
                "These files have no resampled scores, so the probabilities come from the intervals of pairs "
                "and are approximate."
            )
        seeds = max((len(score.seeds) for score in verdict.scores.values()), default=0)
        if seeds <= 1:
            notes.append("One seed was run, so how much chance in training moves the scores is not known.")
        decision = verdict.decision
        if decision.worse and (decision.undecided or len(decision.equals) > 1):
            notes.append(f"Shown to be worse than {decision.likeliest}: {few(decision.worse)}.")
    unscored = [
        item.name for item in comparison.methods if verdict is None or item.name not in verdict.scores
    ]
    if unscored:
        notes.append(f"Without a score, and so not in the answer: {listed(unscored)}.")
    failed = sum(trial.status == "failed" for trial in comparison.trials)
    if failed:
        notes.append(
            f"{several(failed, 'trial')} of {len(comparison.trials)} failed; each is shown with its error."
        )
    warnings = sum(finding.level == "warning" for finding in merged(comparison.findings))
    if warnings:
        notes.append(f"{several(warnings, 'warning')} among the findings: read them before relying on this.")
    return notes


def few(names: list[str]) -> str:
    """List names, or count them where they are many."""
    return listed(names) if len(names) <= FEW else f"{len(names)} methods (see the tests)"


def _unseen(comparison: Comparison, verdict: Verdict) -> list[str]:
    if (
        "unseen" not in splits(comparison)
        or main_split(comparison) == "unseen"
        or unmeasurable(comparison, "unseen")
    ):
        return []
    better = [
        item.name
        for item in comparison.methods
        if shown_better(comparison, "unseen", item.name, verdict.chosen)
    ]
    if not better:
        return []
    return [f"On unseen rows {listed(better)} {'was' if len(better) == 1 else 'were'} shown to be better."]
