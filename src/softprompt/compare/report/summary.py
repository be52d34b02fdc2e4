"""The answer in two sentences, what limits it, and a sentence for each test. What is so, `verdict` says."""

from __future__ import annotations

from ...page.numbers import Unit, about, listed, seconds, several, unit
from .aggregate import Quality, main_split, splits
from .limits import merged, unmeasurable
from .schema import Comparison, PairTest
from .verdict import Verdict, could_show, gain, pair, shown_better, strongest, turned

#: More names than these are counted, not listed.
FEW = 5


def answer(comparison: Comparison, verdict: Verdict | None) -> tuple[str, list[str]]:
    """Return the headline and the sentences."""
    if verdict is None:
        errors = "The trials below say what went wrong, and how to fix it."
        if not any(trial.phase == "final" or trial.status == "failed" for trial in comparison.trials):
            errors = "No final training was run: the trials below have the dev scores of the search."
        return "No answer yet", [
            "No method was both trained and scored, so there is nothing to choose between.",
            errors,
            *_left_out(comparison),
        ]
    if verdict.beaten_by:
        return _none_needed(comparison, verdict)
    headline = f"Take {verdict.chosen}"
    first, second = _choice(comparison, verdict), _certainty(comparison, verdict)
    more = _left_out(comparison)
    if verdict.not_beaten:
        names = [test.b for test in verdict.not_beaten]
        headline = f"{verdict.chosen}, but it was not shown to beat {listed(names)}"
    return headline, [first, second, *more]


def _left_out(comparison: Comparison) -> list[str]:
    """Name what there was no time for."""
    left_out = comparison.study.budget.get("left_out")
    return (
        [f"There was no time for this: {', '.join(left_out)}; a longer compare.within has it."]
        if left_out
        else []
    )


def _none_needed(comparison: Comparison, verdict: Verdict) -> tuple[str, list[str]]:
    u, test = unit(comparison.study.metric), strongest(comparison, verdict.beaten_by)
    return f"Keep {test.b}", [
        f"{outcome_text(comparison, test)[0]}, so none of the methods tried earned its training.",
        f"Of these, take {verdict.chosen} if one is wanted: it scored {_scored(comparison, verdict, u)}.",
        *_left_out(comparison),
    ]


def _choice(comparison: Comparison, verdict: Verdict) -> str:
    u, chosen = unit(comparison.study.metric), verdict.chosen
    if len(verdict.equals) + len(verdict.others) == 1:
        return f"{chosen} was the only method tried: it scored {_scored(comparison, verdict, u)}."
    if len(verdict.equals) == 1:
        split = main_split(comparison)
        tests = [t for name in verdict.others if (t := pair(comparison, split, chosen, name)) is not None]
        near = strongest(comparison, tests)
        if len(verdict.others) == 1:
            return f"{chosen} is better than {near.b} by {_gain(comparison, near, u)}."
        whom = f"each of the {len(verdict.others)} other methods"
        return f"{chosen} is better than {whom}: than {near.b}, the nearest, by {_gain(comparison, near, u)}."
    rest = _rest(verdict)
    whom = f"and {rest[0]}" if len(rest) == 1 else f"and {len(rest)} other methods"
    compared = any(pair(comparison, main_split(comparison), chosen, name) for name in rest)
    lead = "No difference was shown" if compared else "No test was made, so no difference was shown,"
    text = f"{lead} between {chosen} {whom}: take "
    times = {name: verdict.costs.get(name, {}).get("train_seconds") for name in verdict.equals}
    if times[chosen] is None:
        return text + f"{chosen}, the one that scored highest, since what they cost was not measured."
    others = sorted(time for name, time in times.items() if name != chosen and time is not None)
    against = f"; the {'other' if len(others) == 1 else 'others'} {_range(others)}" if others else ""
    if not verdict.cheapest:
        beat = "the cheapest of those shown to beat most references"
        return text + f"{chosen}, {beat} ({seconds(times[chosen])} to train)."
    cheap = "cheaper" if len(rest) == 1 else "cheapest"
    return text + f"the {cheap}, {chosen} ({seconds(times[chosen])} to train{against})."


def _range(values: list[float]) -> str:
    low, high = seconds(values[0]), seconds(values[-1])
    return low if low == high else f"{low} to {high}"


def _certainty(comparison: Comparison, verdict: Verdict) -> str:
    u, split = unit(comparison.study.metric), main_split(comparison)
    parts = []
    if len(verdict.equals) + len(verdict.others) > 1:
        parts.append(f"It scored {_scored(comparison, verdict, u)}")
    if verdict.beaten:
        near = strongest(comparison, verdict.beaten)
        parts.append(f"it is better than {near.b}, a reference, by {_gain(comparison, near, u)}")
    if verdict.best != verdict.chosen:
        test = pair(comparison, split, verdict.best, verdict.chosen)
        parts.append(_ahead(comparison, test, verdict, u))
    text = "; ".join(parts) or "It was compared with no reference, so what tuning brought is not known"
    return text[0].upper() + text[1:] + "."


def _ahead(comparison: Comparison, test: PairTest | None, verdict: Verdict, u: Unit) -> str:
    """Say how far the highest score is above the chosen one's; no test showed it to be more than chance."""
    if test is None:
        value = u.value(verdict.scores[verdict.best].value)
        return f"{verdict.best} scored {value}, but no test compared the two"
    return f"{verdict.best} scored higher by {_gain(comparison, test, u)}, which may be chance"


def _needed(test: PairTest) -> str:
    now = "" if could_show(test) else "; these rows cannot show any"
    return now + (
        "" if test.rows_needed is None else f"; about {about(test.rows_needed)} rows could show one"
    )


def _scored(comparison: Comparison, verdict: Verdict, u: Unit) -> str:
    score = verdict.scores[verdict.chosen]
    lower = "" if comparison.study.higher_is_better else ", lower is better"
    return f"{score_text(u, score)} in {u.label}{lower}{_of(comparison, score)}"


def _of(comparison: Comparison, score: Quality) -> str:
    rows = "" if score.n is None else f" on {several(score.n, f'{main_split(comparison)} row')}"
    return rows + (f" with {several(len(score.seeds), 'seed')}" if score.seeds else "")


def score_text(u: Unit, score: Quality | None) -> str:
    """Write as `84.1 % (81.6 … 86.4)`."""
    return "–" if score is None else u.value(score.value) + u.interval(score.low, score.high)


def _gain(comparison: Comparison, test: PairTest, u: Unit) -> str:
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
    """
    u = unit(test.metric)
    lead = gain(comparison, test)
    if ((test.significant or first not in (test.a, test.b)) and lead < 0) or (
        not test.significant and first == test.b
    ):
        test = turned(test)
    by = _gain(comparison, test, u)
    if test.significant:
        return f"{test.a} is better than {test.b} by {by}", by
    return f"No difference was shown between {test.a} and {test.b}{_needed(test)}", by


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
            notes.append(f"No difference from {near.b}, which needs no tuning, was shown{_needed(near)}.")
        notes += _unseen(comparison, verdict)
        if len(verdict.equals) > 2:
            notes.append(f"No difference from it was shown for {_few(_rest(verdict))}.")
        seeds = max((len(score.seeds) for score in verdict.scores.values()), default=0)
        if seeds <= 1:
            notes.append("One seed was run, so how much chance in training moves the scores is not known.")
        if verdict.others and len(verdict.equals) > 1:
            notes.append(f"Shown to be worse than it or than one of its equals: {_few(verdict.others)}.")
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


def _few(names: list[str]) -> str:
    return listed(names) if len(names) <= FEW else f"{len(names)} methods (see the tests)"


def _rest(verdict: Verdict) -> list[str]:
    return [name for name in verdict.equals if name != verdict.chosen]


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
