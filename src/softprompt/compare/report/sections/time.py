"""The section about time has dev scores along the way, who leads when, and whether equal time was equal."""

from __future__ import annotations

from ....page import charts
from ....page.blocks import Block, Figure, Panel, Section, Table, Text
from ....page.numbers import MISSING, count, listed, seconds, unit
from .. import progress
from ..progress import Curves
from ..schema import Comparison, Spent
from ..style import looks

DEVIATION = 0.15  # of the planned seconds; more is put into words
WHOLE, ONE = "the whole method", "one final run"


def section(comparison: Comparison) -> Section:
    curves = progress.of_trainings(comparison)
    if not curves:
        text = "Dev scores along the way: not recorded with their seconds in this comparison."
        return Section("time", "Quality against time", [Text(text, quiet=True)])
    blocks: list[Block] = [Text(_leading(comparison, curves)), _figure(comparison, curves)]
    if comparison.times:
        blocks.append(_times(comparison))
        blocks += [Text(text) for text in deviations(comparison)]
    return Section("time", "Quality against time", blocks)


def _leading(comparison: Comparison, trainings: Curves) -> str:
    """Say which method has the best dev score at each mark."""
    curves = progress.of_methods(comparison) or trainings
    parts = [
        f"at {_time(time)} {listed(names)}"
        for share, time in progress.marks(comparison, curves)
        if (names := progress.leaders(comparison, curves, share, time))
    ]
    return f"The best mean dev score has, {'; '.join(parts)}."


def deviations(comparison: Comparison) -> list[str]:
    """Say which methods took much more or less than was planned, and why, as far as it is known."""
    texts = []
    for spent in comparison.times:
        if spent.seconds is None:
            texts.append(f"{spent.contestant}: what its trainings took is not known.")
            continue
        share = spent.seconds / spent.planned_seconds - 1
        if abs(share) <= DEVIATION:
            continue
        why = "the machine was busier or slower than when its steps were timed"
        if share < 0:
            why = "the machine was faster than when its steps were timed"
            if spent.failed or spent.ended_early:
                why = f"{spent.failed} of its trials failed and {spent.ended_early} ended early"
        more = "more" if share > 0 else "less"
        texts.append(
            f"{spent.contestant} took {100 * abs(share):.0f}\u00a0% {more} time than planned: {why}."
        )
    return texts


def _figure(comparison: Comparison, trainings: Curves) -> Figure:
    whole = progress.of_methods(comparison)
    shown, kind = (whole, WHOLE) if whole else (trainings, ONE)
    caption = (
        "Means over the seeds of the final runs on the dev rows, the best so far; the band reaches from the "
        "lowest seed to the highest. Seconds are those of training steps and caches; scoring the dev rows is "
        "not counted. No test was made: which method leads may be chance, and the answer above is about "
        "other rows."
    )
    if whole:
        caption += (
            " The seconds of the whole method are those of its search and of all seeds: at a tenth of them, "
            "each final run had done a tenth of its steps. A comparison with a tenth of the budget would "
            "lower its learning rate sooner, and may do better at that time."
        )
    panels = [_panel(comparison, shown, kind)]
    if whole:
        panels.append(_panel(comparison, trainings, ONE))
    table = _leaders(comparison, shown, kind)
    return Figure("along", "Dev scores along the way", caption, panels, table, "Time of")


def _panel(comparison: Comparison, curves: Curves, kind: str) -> Panel:
    u, look = unit(comparison.study.metric), looks(comparison)
    drawn = [
        charts.lines(
            [charts.Curve(look[name], [(p.seconds, p.value, p.low, p.high) for p in points])
             for name, points in curves.items()],
            width=width,
            title=f"{u.axis} on the dev rows against the seconds of {kind}",
            about="One line a method; scores at three times are in the table below.",
            labels=(f"time of {kind}", f"{u.axis}, dev rows"),
            say=(_time, u.tick),
            log=True,
            bounds=u.bounds,
            ticks=_ticks(curves),
            band=True,
        )
        for width in (charts.WIDE, charts.NARROW)
    ]  # fmt: skip
    return Panel(kind, *drawn)


def _ticks(curves: Curves) -> list[float]:
    """Return round times within the curves."""
    places = [point.seconds for points in curves.values() for point in points]
    low, high = min(places), max(places)
    steps = [f * 10.0**n for n in range(-3, 1) for f in (1, 3)]
    steps += [10, 30, *(60 * n for n in (1, 3, 10, 30)), *(3600 * n for n in (1, 3, 10, 30, 100))]
    inside = [step for step in steps if low <= step <= high]
    return inside if len(inside) > 1 else [low, high]


def _leaders(comparison: Comparison, curves: Curves, kind: str) -> Table:
    """Name the leader at a tenth, three tenths and the end of the time, above the scores of all."""
    u, marks = unit(comparison.study.metric), progress.marks(comparison, curves)
    leads = [listed(progress.leaders(comparison, curves, *mark)) or MISSING for mark in marks]
    rows = [["leads", *leads]]
    for name, points in curves.items():
        reached = [progress.at(comparison, points, *mark) for mark in marks]
        rows.append([name, *(MISSING if p is None else _cell(comparison, p) for p in reached)])
    names = {item.name for item in comparison.references}
    for trial in comparison.trials:
        value = trial.dev.get(comparison.study.metric)
        if trial.contestant in names and trial.phase == "reference" and value is not None:
            rows.append([f"{trial.contestant} (nothing is trained)", *[u.value(value)] * len(marks)])
    heads = [f"{_time(time)}{', the end' if share == 1 else ''}" for share, time in marks]
    caption = f"Who leads when: {u.label} on the dev rows by the time of {kind} (mean; lowest … highest seed)"
    return Table(caption, ["method", *heads], rows, right=range(1, len(marks) + 1))


def _time(value: float) -> str:
    """Write whole minutes as minutes."""
    return f"{value / 60:.0f} min" if 60 <= value < 3600 and value % 60 == 0 else seconds(value)


def _cell(comparison: Comparison, point: progress.Reached) -> str:
    u = unit(comparison.study.metric)
    return u.value(point.value) + (u.interval(point.low, point.high) if point.low < point.high else "")


def _times(comparison: Comparison) -> Table:
    """Return what was planned for each method beside what it took."""
    budget = max(each.budget_seconds for each in comparison.times)

    def row(each: Spent) -> list[str]:
        off = (
            MISSING
            if each.seconds is None
            else f"{100 * (each.seconds / each.planned_seconds - 1):+.0f}\u00a0%"
        )
        parts = (
            each.planned_seconds,
            each.seconds,
            each.search_seconds,
            each.final_seconds,
            each.cache_seconds,
        )
        return [each.contestant, count(each.steps), *map(seconds, parts), off.replace("-", "−")]

    columns = [
        "method",
        "steps of each trial",
        "planned",
        "measured",
        "search",
        "final runs",
        "caches on disk",
    ]
    return Table(
        f"Equal time: {seconds(budget)} for each method",
        [*columns, "measured against planned"],
        [row(each) for each in comparison.times],
        right=range(1, 8),
    )
