"""Quality against cost, the scores with their intervals, and what each test between two methods showed."""

from __future__ import annotations

from ....page import charts
from ....page.blocks import Block, Figure, Panel, Section, Table, Text
from ....page.numbers import MISSING, p_value, several, unit
from ..aggregate import Quality, costs, main_split, quality
from ..limits import unmeasurable
from ..schema import Comparison, PairTest
from ..style import looks
from ..summary import outcome_text, score_text
from ..verdict import Verdict, could_show
from .cost_kinds import KINDS, CostKind
from .drawing import of_methods

#: With more tests than this, those without the chosen method are folded away.
MANY = 8


def section(comparison: Comparison, decided: Verdict | None) -> Section:
    split = main_split(comparison)
    scores = quality(comparison, split)
    if not scores:
        return Section("quality", "Quality and cost", [Text("Nothing was scored.", quiet=True)])
    blocks: list[Block] = [block for block in (_pareto(comparison, split, scores),) if block is not None]
    blocks.append(_scores(comparison, split, scores))
    blocks += _tests(comparison, decided)
    return Section("quality", "Quality and cost", blocks)


def _pareto(comparison: Comparison, split: str, scores: dict[str, Quality]) -> Figure | None:
    paid = costs(comparison)
    names = [item.name for item in comparison.methods if item.name in scores]
    kinds = [k for k in KINDS if k.chosen and any(k.key in paid.get(name, {}) for name in names)]
    if not kinds:
        return None
    u = unit(comparison.study.metric)
    shown = [*names, *(item.name for item in comparison.references if item.name in scores)]
    table = Table(
        f"{u.axis} on the {split} rows, and what it cost",
        ["method", f"{u.label} (95 % interval)", *(kind.label for kind in kinds)],
        [
            [
                name,
                score_text(u, scores[name]),
                *(kind.full(paid.get(name, {}).get(kind.key)) for kind in kinds),
            ]
            for name in shown
        ],
        right=range(1, len(kinds) + 2),
    )
    better = "higher" if comparison.study.higher_is_better else "lower"
    return Figure(
        "pareto",
        "Quality against cost",
        f"Better is {better} and further left. Bars are 95 % intervals; where they overlap, do not read an "
        "order from the points: the tests below say what was shown. Dashed lines are references. The thin "
        "stepped line joins the methods to which no other is both cheaper and better scored.",
        [_scatter(comparison, split, scores, kind) for kind in kinds],
        table,
        choice="Cost",
    )


def _scatter(comparison: Comparison, split: str, scores: dict[str, Quality], kind: CostKind) -> Panel:
    u, paid, look = unit(comparison.study.metric), costs(comparison), looks(comparison)
    references = {item.name for item in comparison.references}
    points = []
    for name, score in scores.items():
        x = None if name in references else paid.get(name, {}).get(kind.key)
        if x is None and name not in references:
            continue
        at = "" if x is None else f", {kind.full(x)}"
        tip = f"{name}: {score_text(u, score)}{at}"
        points.append(charts.Level(look[name], x, score.value, score.low, score.high, tip))
    lower = "" if comparison.study.higher_is_better else ", lower is better"
    drawn = [
        charts.scatter(
            points,
            width=width,
            title=f"{u.axis} against {kind.label}",
            about=f"Each of {several(len(points), 'contestant')} with its {u.label} on the {split} rows; "
            "the same numbers are in the table below.",
            labels=(kind.label, f"{u.axis}, {split} rows{lower}"),
            say=(kind.short, u.tick),
            higher=comparison.study.higher_is_better,
            steps=kind.steps,
            bounds=u.bounds,
        )
        for width in (charts.WIDE, charts.NARROW)
    ]
    return Panel(kind.label, *drawn)


def _scores(comparison: Comparison, split: str, scores: dict[str, Quality]) -> Figure:
    u, look = unit(comparison.study.metric), looks(comparison)
    sign = -1 if comparison.study.higher_is_better else 1
    order = sorted(scores, key=lambda name: sign * scores[name].value)
    rows = [
        (look[n], [charts.Dot(s.value, s.low, s.high, s.seeds, tip=f"{n}: {score_text(u, s)}")])
        for n in order
        if (s := scores[n])
    ]
    metrics = list(dict.fromkeys(m for s in comparison.scores if s.split == split for m in s.metrics))
    others = [(unit(m), quality(comparison, split, m)) for m in metrics if m != comparison.study.metric]
    table = Table(
        f"Scores on the {split} rows, with 95 % intervals",
        ["method", "seeds", "rows", u.label, *(other.label for other, _ in others)],
        [
            [
                *(name, str(len(scores[name].seeds) or MISSING), str(scores[name].n or MISSING)),
                score_text(u, scores[name]),
                *(score_text(other, values.get(name)) for other, values in others),
            ]
            for name in order
        ],
        right=range(1, 4 + len(others)),
    )
    drawn = of_methods(
        rows,
        u,
        title=f"{u.axis} on the {split} rows by method",
        about="The mean over seeds with its 95 % interval; small strokes are the seeds.",
    )
    return Figure(
        "scores",
        f"Scores on the {split} rows",
        "Shapes are means over seeds, lines their 95 % intervals, small strokes the seeds.",
        [Panel("", *drawn)],
        table,
    )


def _tests(comparison: Comparison, decided: Verdict | None) -> list[Block]:
    if not comparison.tests:
        return [
            Text("No test between methods was made, so no difference between them was shown.", quiet=True)
        ]
    chosen = None if decided is None else decided.chosen
    main = main_split(comparison)
    ordered = sorted(
        comparison.tests, key=lambda t: (t.split != main, t.split, t.metric != comparison.study.metric)
    )
    first = [
        t for t in ordered if chosen in (t.a, t.b) and t.split == main and t.metric == comparison.study.metric
    ]
    if len(comparison.tests) <= MANY or not first:
        return [_table(comparison, "What each test showed", ordered, False)]
    rest = [test for test in ordered if test not in first]
    tables = [
        _table(comparison, f"What the tests of {chosen} showed on the {main} rows", first, False, chosen)
    ]
    others = [_table(comparison, "All other tests", rest, True)] if rest else []
    return [*tables, *others]


def _table(
    comparison: Comparison, caption: str, tests: list[PairTest], closed: bool, first: str | None = None
) -> Table:
    rows, blind = [], {split for split in {t.split for t in tests} if unmeasurable(comparison, split)}
    for t in tests:
        u = unit(t.metric)
        words, by = outcome_text(comparison, t, first)
        within = t.detectable is not None and t.detectable <= u.span
        could = u.difference(t.detectable) if within else MISSING
        could = could if could_show(t) else "these rows cannot show any"
        sizes = f"{t.n_rows or MISSING} × {t.n_seeds or MISSING}"
        of = f"{t.split} (cannot measure)" if t.split in blind else t.split
        where = of if t.metric == comparison.study.metric else f"{of}, {u.label}"
        p = p_value(t.p if t.p_adjusted is None else t.p_adjusted)
        rows.append([words + ".", by, where, p, sizes, could])
    old = any(t.level is None for t in tests)
    which = "95 % interval of the pair alone, not corrected" if old else "interval, corrected"
    columns = ["what was shown", f"first named better by ({which})", "rows of", "p, corrected"]
    columns += ["rows × seeds", "smallest difference it could show"]
    return Table(caption, columns, rows, right=(1, 3, 4, 5), closed=closed)
