"""The answer is put into words here: which method to take, or that the rows do not tell (`decision`)."""

from __future__ import annotations

from ...page.numbers import Unit, about, listed, probability, seconds, several, unit
from .aggregate import Quality, main_split
from .decision import rows_to_tell
from .schema import Comparison
from .summary import few, gain_text, margin_text, outcome_text, score_text
from .verdict import Verdict, pair, strongest


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
    if verdict.beaten_by or verdict.matched:
        headline, sentences = _none_needed(comparison, verdict)
    elif not verdict.decision.tells:
        headline, sentences = _undecided(comparison, verdict)
    else:
        headline, sentences = _decided(comparison, verdict)
    return headline, [*sentences, *_left_out(comparison)]


def _left_out(comparison: Comparison) -> list[str]:
    """Name what there was no time for."""
    left_out = comparison.study.budget.get("left_out")
    return (
        [f"There was no time for this: {', '.join(left_out)}; a longer compare.within has it."]
        if left_out
        else []
    )


def _none_needed(comparison: Comparison, verdict: Verdict) -> tuple[str, list[str]]:
    u = unit(comparison.study.metric)
    test = strongest(comparison, verdict.beaten_by or verdict.matched)
    reason = (
        f"{outcome_text(comparison, test)[0]}, so none of the methods tried was shown to earn its training."
    )
    if not verdict.beaten_by:
        near, gained = margin_text(u, verdict.decision.margin), gain_text(comparison, test, u)
        reason = f"{test.a} equals {test.b} within {near}: training gained {gained}."
    return f"Keep {test.b}", [
        reason,
        f"Of these, take {verdict.chosen} if one is wanted: it scored {_scored(comparison, verdict, u)}.",
    ]


def _not_beaten(verdict: Verdict) -> str:
    """Name the references that the chosen method was not shown to beat, for the headline."""
    names = [test.b for test in verdict.not_beaten]
    return f", but it was not shown to beat {listed(names)}" if names else ""


def _decided(comparison: Comparison, verdict: Verdict) -> tuple[str, list[str]]:
    but = _not_beaten(verdict)
    headline = f"{verdict.chosen}{but}" if but else f"Take {verdict.chosen}"
    return headline, [_choice(comparison, verdict), _certainty(comparison, verdict)]


def _undecided(comparison: Comparison, verdict: Verdict) -> tuple[str, list[str]]:
    decision, u = verdict.decision, unit(comparison.study.metric)
    chosen, likeliest, standing = decision.chosen, decision.likeliest, decision.standing
    odds = "" if standing is None else f" ({probability(decision.standings[likeliest].best)})"
    word = "has the highest score" if standing is None else "is the likeliest"
    headline = f"These rows do not tell which method is best: {likeliest} {word}{odds}{_not_beaten(verdict)}"
    reason = ""
    if chosen != likeliest:
        reason = f", which equals {likeliest} within {margin_text(u, decision.margin)}{_costs(verdict)}"
    parts = [f"If you must choose now, take {chosen}{reason}: it scored {_scored(comparison, verdict, u)}"]
    if standing is not None:
        within = margin_text(u, decision.margin)
        parts.append(
            f"it is the best with a probability of {probability(standing.best)}, and within {within} of the "
            f"best with {probability(standing.within)}"
        )
    sentences = ["; ".join(parts) + "."]
    if standing is not None:
        wrong = standing.loss / (1 - standing.best) if standing.best < 0.995 else None
        loss = f"The expected loss of this choice against the best is {u.difference(standing.loss)}"
        sentences.append(loss + (f"; if it is wrong, {u.difference(wrong)}." if wrong else "."))
    sentences.append(_rest(comparison, verdict))
    return headline, sentences


def _rest(comparison: Comparison, verdict: Verdict) -> str:
    """Name those of which the rows do not tell, and say how many rows would."""
    decision, split = verdict.decision, main_split(comparison)
    tests = [pair(comparison, split, decision.likeliest, name) for name in decision.undecided]
    compared = [test for test in tests if test is not None]
    if not compared:
        return f"No test compared {decision.likeliest} with {few(decision.undecided)}."
    text = f"Neither a difference nor equality was shown between {decision.likeliest} and "
    text += few(decision.undecided)
    margin = margin_text(unit(comparison.study.metric), decision.margin)
    if decision.rows is not None:
        now = max((test.n_rows or 0 for test in compared), default=0)
        count = f"about {about(decision.rows)}" if decision.rows > 1.1 * now else "slightly more"
        which = f"{count} {split} rows would tell"
        return f"{text}; if the differences stay as they are, {which} (80 % power, margin {margin})."
    if not verdict.is_approximate and len(compared) == len(tests):
        hidden = [test.b for test in compared if rows_to_tell(test, decision.margin) is None]
        return (
            f"{text}. No number of {split} rows would tell of {few(hidden)}, as seeds alone move the scores "
            "by more: run more seeds (compare.seeds)."
        )
    return text + "."


def _choice(comparison: Comparison, verdict: Verdict) -> str:
    """Say why the method is taken where the rows tell."""
    u, decision, chosen = unit(comparison.study.metric), verdict.decision, verdict.chosen
    if len(decision.equals) + len(decision.worse) == 1:
        return f"{chosen} was the only method tried: it scored {_scored(comparison, verdict, u)}."
    if len(decision.equals) == 1:
        split = main_split(comparison)
        tests = [t for name in decision.worse if (t := pair(comparison, split, chosen, name)) is not None]
        near = strongest(comparison, tests)
        if len(decision.worse) == 1:
            return f"{chosen} is better than {near.b} by {gain_text(comparison, near, u)}."
        whom = f"each of the {len(decision.worse)} other methods"
        by = gain_text(comparison, near, u)
        return f"{chosen} is better than {whom}: than {near.b}, the nearest, by {by}."
    rest = [name for name in decision.equals if name != decision.likeliest]
    text = f"{few(rest)} {'equals' if len(rest) == 1 else 'equal'} {decision.likeliest} within "
    text += f"{margin_text(u, decision.margin)}: take "
    times = {name: verdict.costs.get(name, {}).get("train_seconds") for name in decision.equals}
    if times[chosen] is None:
        return text + f"{chosen}, the one that scored highest, since what they cost was not measured."
    known = [time for time in times.values() if time is not None]
    if times[chosen] != min(known):
        beat = "the cheapest of those shown to beat most references"
        return text + f"{chosen}, {beat} ({seconds(times[chosen])} to train)."
    cheap = "cheaper" if len(rest) == 1 else "cheapest"
    return text + f"the {cheap}, {chosen}{_costs(verdict)}."


def _costs(verdict: Verdict) -> str:
    """Write as ` (12 s to train; the other 80 s)`, of the equals."""
    times = {name: verdict.costs.get(name, {}).get("train_seconds") for name in verdict.decision.equals}
    chosen = times.pop(verdict.chosen)
    others = sorted(time for time in times.values() if time is not None)
    if chosen is None:
        return ""
    against = f"; the {'other' if len(others) == 1 else 'others'} {_range(others)}" if others else ""
    return f" ({seconds(chosen)} to train{against})"


def _range(values: list[float]) -> str:
    low, high = seconds(values[0]), seconds(values[-1])
    return low if low == high else f"{low} to {high}"


def _certainty(comparison: Comparison, verdict: Verdict) -> str:
    u, decision, parts = unit(comparison.study.metric), verdict.decision, []
    if len(decision.equals) + len(decision.worse) > 1:
        parts.append(f"It scored {_scored(comparison, verdict, u)}")
    if verdict.beaten:
        near = strongest(comparison, verdict.beaten)
        parts.append(f"it is better than {near.b}, a reference, by {gain_text(comparison, near, u)}")
    if decision.likeliest != verdict.chosen:
        test = pair(comparison, main_split(comparison), decision.likeliest, verdict.chosen)
        if test is not None:
            by = gain_text(comparison, test, u)
            parts.append(f"{decision.likeliest}, the likeliest best, scored higher by {by}")
    text = "; ".join(parts) or "It was compared with no reference, so what tuning brought is not known"
    return text[0].upper() + text[1:] + "."


def _scored(comparison: Comparison, verdict: Verdict, u: Unit) -> str:
    score = verdict.scores[verdict.chosen]
    lower = "" if comparison.study.higher_is_better else ", lower is better"
    return f"{score_text(u, score)} in {u.label}{lower}{_of(comparison, score)}"


def _of(comparison: Comparison, score: Quality) -> str:
    rows = "" if score.n is None else f" on {several(score.n, f'{main_split(comparison)} row')}"
    return rows + (f" with {several(len(score.seeds), 'seed')}" if score.seeds else "")
