"""The section about scalability covers unseen inputs, more rows, more prompts in one table, new prompts."""

from __future__ import annotations

from collections.abc import Sequence

from ....page import charts
from ....page.blocks import Block, Figure, Panel, Section, Table, Text
from ....page.numbers import MISSING, Unit, count, unit
from ..aggregate import mean, quality, splits
from ..limits import unmeasurable
from ..schema import Comparison, Point
from ..style import looks
from ..summary import score_text
from .drawing import of_methods


def section(comparison: Comparison) -> Section:
    blocks: list[Block] = [_unseen(comparison)]
    blocks.append(_curve(comparison, comparison.curves, "rows", "Learning curves", "training rows"))
    blocks.append(
        _curve(comparison, comparison.tables, "prompts", "One table of many prompts", "prompts in the table")
    )
    blocks.append(_newcomers(comparison))
    return Section("scalability", "Scalability", blocks)


def _unseen(comparison: Comparison) -> Block:
    u = unit(comparison.study.metric)
    if not {"test", "unseen"} <= set(splits(comparison)):
        text = (
            "No unseen inputs were scored, so how well the methods carry over to other inputs is not known."
        )
        return Text(text, quiet=True)
    seen, unseen = quality(comparison, "test"), quality(comparison, "unseen")
    sign = -1 if comparison.study.higher_is_better else 1
    names = [name for name in seen if name in unseen]
    names.sort(key=lambda name: sign * unseen[name].value)
    if not names:
        return Text("No contestant was scored on both seen and unseen inputs.", quiet=True)
    look = looks(comparison)
    rows = [
        (
            look[name],
            [
                charts.Dot(
                    s.value,
                    s.low,
                    s.high,
                    hollow=where == "unseen",
                    tip=f"{name}, {where}: {score_text(u, s)}",
                )
                for where, s in (("seen", seen[name]), ("unseen", unseen[name]))
            ],
        )
        for name in names
    ]
    drawn = of_methods(
        rows,
        u,
        title=f"{u.axis} on seen and unseen inputs by method",
        about="Filled shapes are seen inputs, hollow ones unseen; the line between them is the gap.",
        join=True,
    )
    table = Table(
        f"{u.axis} on seen (test) and unseen inputs",
        ["method", "seen", "unseen", "gap (seen − unseen)"],
        [
            [
                n,
                score_text(u, seen[n]),
                score_text(u, unseen[n]),
                u.difference(seen[n].value - unseen[n].value),
            ]
            for n in names
        ],
        right=(1, 2, 3),
    )
    return Figure("unseen", "Seen and unseen inputs", _how(comparison), [Panel("", *drawn)], table)


def _newcomers(comparison: Comparison) -> Block:
    """Prompts that no training saw, tuned on a few rows."""
    u, look = unit(comparison.study.metric), looks(comparison)
    scores, known = quality(comparison, "newcomers"), quality(comparison, "test")
    if not scores:
        return Text("Prompts never seen in training: not measured in this comparison.", quiet=True)
    sign = -1 if comparison.study.higher_is_better else 1
    names = sorted(scores, key=lambda name: sign * scores[name].value)
    rows = [
        (look[name], [charts.Dot(s.value, s.low, s.high, tip=f"{name}: {score_text(u, s)}")])
        for name in names
        for s in (scores[name],)
    ]
    drawn = of_methods(
        rows,
        u,
        title=f"{u.axis} of prompts never seen in training",
        about="One line a method; the same numbers are in the table below.",
    )
    table = Table(
        f"{u.axis} of prompts never seen in training, and of those trained (test)",
        ["method", "new prompts", "trained prompts"],
        [[n, score_text(u, scores[n]), score_text(u, known.get(n))] for n in names],
        right=(1, 2),
    )
    return Figure("newcomers", "Prompts never seen in training", _few(comparison), [Panel("", *drawn)], table)


def _few(comparison: Comparison) -> str:
    about = comparison.study.newcomers or {}
    prompts, rows = len(about.get("prompts") or []), about.get("rows")
    counts = f" ({prompts} prompts, {rows} rows to tune all of them)" if prompts and rows else ""
    return (
        f"Prompts that were held out whole, each tuned on a few rows{counts} and scored on its others. What "
        "the trained prompts share, as a generator, stays as it was trained; where they share nothing, a new "
        "prompt starts afresh. few-shot is shown the same few rows."
    )


def _how(comparison: Comparison) -> str:
    unseen = comparison.study.unseen or {}
    ways = {
        "field": "Unseen inputs are those whose field names what was held out",
        "file": "Unseen inputs come from a file of their own",
        "clusters": "Unseen inputs are clusters of the inputs' embeddings that were held out",
    }
    way = ways.get(str(unseen.get("how")), "Unseen inputs were held out from training")
    detail = f" ({unseen['detail']})" if unseen.get("detail") else ""
    why = unmeasurable(comparison, "unseen")
    warning = f"The unseen rows cannot measure quality: {why}. " if why else ""
    return (
        f"{warning}Filled: seen. Hollow: unseen. {way}{detail}. The gap is a difference of two means, "
        "without a test."
    )


def _curve(comparison: Comparison, points: Sequence[Point], key: str, title: str, label: str) -> Block:
    u, look = unit(comparison.study.metric), looks(comparison)
    values = _by_contestant(points, key)
    shown = {name: values[name] for name in look if name in values}
    if not shown:
        return Text(f"{title}: not measured in this comparison.", quiet=True)
    xs = sorted({x for curve in shown.values() for x in curve})
    curves = [
        charts.Curve(look[name], [(x, *curve[x]) for x in sorted(curve)]) for name, curve in shown.items()
    ]
    split = points[0].split
    drawn = [
        charts.lines(
            curves,
            width=width,
            title=f"{u.axis} by {label}",
            about=f"One line a method, {len(xs)} places; the same numbers are in the table below.",
            labels=(label, f"{u.axis}, {split} rows"),
            say=(count, u.tick),
            log=True,
            bounds=u.bounds,
        )
        for width in (charts.WIDE, charts.NARROW)
    ]
    table = Table(
        f"{u.axis} by {label} (mean over seeds; lowest … highest seed)",
        ["method", *(count(x) for x in xs)],
        [[name, *(_cell(u, curve.get(x)) for x in xs)] for name, curve in shown.items()],
        right=range(1, len(xs) + 1),
    )
    caption = f"Means over seeds on the {split} rows; strokes reach from the lowest seed to the highest."
    return Figure(f"by-{key}", title, caption, [Panel("", *drawn)], table)


Spread = tuple[float, float | None, float | None]


def _by_contestant(points: Sequence[Point], key: str) -> dict[str, dict[float, Spread]]:
    raw: dict[str, dict[float, list[float]]] = {}
    for point in points:
        x = getattr(point, key)
        if x is not None and point.value is not None:
            raw.setdefault(point.contestant, {}).setdefault(x, []).append(point.value)
    return {name: {x: _spread(values) for x, values in curve.items()} for name, curve in raw.items()}


def _spread(values: list[float]) -> Spread:
    return (mean(values), min(values), max(values)) if len(values) > 1 else (values[0], None, None)


def _cell(u: Unit, spread: Spread | None) -> str:
    return MISSING if spread is None else u.value(spread[0]) + u.interval(*spread[1:])
