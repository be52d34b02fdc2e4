"""Quality against cost, the scores with their intervals, and what each test between two methods showed."""

from __future__ import annotations

from .. import charts
from ..aggregate import Quality, costs, main_split, quality
from ..blocks import Block, Figure, Panel, Section, Table, Text
from ..limits import unmeasurable
from ..numbers import MISSING, p_value, several, unit
from ..schema import Comparison, PairTest
from ..style import looks
from ..summary import said, told
from ..verdict import Verdict, could_show
from .cost_kinds import KINDS, CostKind
from .drawing import of_methods

#: With more tests than this, those without the chosen method are folded away.
MANY = 8


def section(found: Comparison, decided: Verdict | None) -> Section:
    split = main_split(found)
    scores = quality(found, split)
    if not scores:
        return Section("quality", "Quality and cost", [Text("Nothing was scored.", quiet=True)])
    blocks: list[Block] = [block for block in (_pareto(found, split, scores),) if block is not None]
    blocks.append(_scores(found, split, scores))
    blocks += _tests(found, decided)
    return Section("quality", "Quality and cost", blocks)


def _pareto(found: Comparison, split: str, scores: dict[str, Quality]) -> Figure | None:
    paid = costs(found)
    names = [one.name for one in found.methods if one.name in scores]
    kinds = [k for k in KINDS if k.chosen and any(k.key in paid.get(name, {}) for name in names)]
    if not kinds:
        return None
    u = unit(found.study.metric)
    shown = [*names, *(one.name for one in found.references if one.name in scores)]
    table = Table(
        f"{u.axis} on the {split} rows, and what it cost",
        ["method", f"{u.label} (95 % interval)", *(kind.label for kind in kinds)],
        [
            [name, said(u, scores[name]), *(kind.full(paid.get(name, {}).get(kind.key)) for kind in kinds)]
            for name in shown
        ],
        right=range(1, len(kinds) + 2),
    )
    better = "higher" if found.study.higher_is_better else "lower"
    return Figure(
        "pareto",
        "Quality against cost",
        f"Better is {better} and further left. Bars are 95 % intervals; where they overlap, do not read an "
        "order from the points: the tests below say what was shown. Dashed lines are references. The thin "
        "stepped line joins the methods to which no other is both cheaper and better scored.",
        [_scatter(found, split, scores, kind) for kind in kinds],
        table,
        choice="Cost",
    )


def _scatter(found: Comparison, split: str, scores: dict[str, Quality], kind: CostKind) -> Panel:
    u, paid, look = unit(found.study.metric), costs(found), looks(found)
    references = {one.name for one in found.references}
    points = []
    for name, score in scores.items():
        x = None if name in references else paid.get(name, {}).get(kind.key)
        if x is None and name not in references:
            continue
        at = "" if x is None else f", {kind.full(x)}"
        tip = f"{name}: {said(u, score)}{at}"
        points.append(charts.Level(look[name], x, score.value, score.low, score.high, tip))
    lower = "" if found.study.higher_is_better else ", lower is better"
    drawn = [
        charts.scatter(
            points,
            width=width,
            title=f"{u.axis} against {kind.label}",
            about=f"Each of {several(len(points), 'contestant')} with its {u.label} on the {split} rows; "
            "the same numbers are in the table below.",
            labels=(kind.label, f"{u.axis}, {split} rows{lower}"),
            say=(kind.short, u.tick),
            higher=found.study.higher_is_better,
            steps=kind.steps,
            bounds=u.bounds,
        )
        for width in (charts.WIDE, charts.NARROW)
    ]
    return Panel(kind.label, *drawn)


def _scores(found: Comparison, split: str, scores: dict[str, Quality]) -> Figure:
    u, look = unit(found.study.metric), looks(found)
    sign = -1 if found.study.higher_is_better else 1
    order = sorted(scores, key=lambda name: sign * scores[name].value)
    rows = [
        (look[n], [charts.Dot(s.value, s.low, s.high, s.seeds, tip=f"{n}: {said(u, s)}")])
        for n in order
        if (s := scores[n])
    ]
    metrics = list(dict.fromkeys(m for s in found.scores if s.split == split for m in s.metrics))
    others = [(unit(m), quality(found, split, m)) for m in metrics if m != found.study.metric]
    table = Table(
        f"Scores on the {split} rows, with 95 % intervals",
        ["method", "seeds", "rows", u.label, *(other.label for other, _ in others)],
        [
            [
                *(name, str(len(scores[name].seeds) or MISSING), str(scores[name].n or MISSING)),
                said(u, scores[name]),
                *(said(other, values.get(name)) for other, values in others),
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


def _tests(found: Comparison, decided: Verdict | None) -> list[Block]:
    if not found.tests:
        return [
            Text("No test between methods was made, so no difference between them was shown.", quiet=True)
        ]
    chosen = None if decided is None else decided.chosen
    main = main_split(found)
    ordered = sorted(found.tests, key=lambda t: (t.split != main, t.split, t.metric != found.study.metric))
    first = [
        t for t in ordered if chosen in (t.a, t.b) and t.split == main and t.metric == found.study.metric
    ]
    if len(found.tests) <= MANY or not first:
        return [_table(found, "What each test showed", ordered, False)]
    rest = [test for test in ordered if test not in first]
    tables = [_table(found, f"What the tests of {chosen} showed on the {main} rows", first, False, chosen)]
    return tables + ([_table(found, "All other tests", rest, True)] if rest else [])  # type: ignore[return-value]


def _table(
    found: Comparison, caption: str, tests: list[PairTest], closed: bool, first: str | None = None
) -> Table:
    rows, blind = [], {split for split in {t.split for t in tests} if unmeasurable(found, split)}
    for t in tests:
        u = unit(t.metric)
        words, by = told(found, t, first)
        within = t.detectable is not None and t.detectable <= u.span
        could = u.difference(t.detectable) if within else MISSING
        could = could if could_show(t) else "these rows cannot show any"
        sizes = f"{t.n_rows or MISSING} × {t.n_seeds or MISSING}"
        of = f"{t.split} (cannot measure)" if t.split in blind else t.split
        where = of if t.metric == found.study.metric else f"{of}, {u.label}"
        p = p_value(t.p if t.p_adjusted is None else t.p_adjusted)
        rows.append([words + ".", by, where, p, sizes, could])
    old = any(t.level is None for t in tests)
    which = "95 % interval of the pair alone, not corrected" if old else "interval, corrected"
    columns = ["what was shown", f"first named better by ({which})", "rows of", "p, corrected"]
    columns += ["rows × seeds", "smallest difference it could show"]
    return Table(caption, columns, rows, right=(1, 3, 4, 5), closed=closed)
