"""The section about control asks whether the prompt decides the output."""

from __future__ import annotations

from ....page import charts
from ....page.blocks import Block, Figure, Panel, Section, Table, Text
from ....page.numbers import Unit, plain, share, tick, unit
from ....page.style import Look
from ..schema import Comparison, Control
from ..style import looks

_SWAP = share("swap", "outputs that follow the prompt given")
#: Each measure's unit, and what it says in plain words.
_MEASURES: dict[str, tuple[Unit, str]] = {
    "swap": (
        _SWAP,
        "follow the prompt given, when prompts are swapped on the same input. Higher is more control.",
    ),
    "adherence": (
        share("adherence", "outputs that keep the constraint"),
        "keep the constraint. Higher is better.",
    ),
    "composition": (
        share("composition", "outputs that obey both prompts"),
        "obey both of two prompts at once.",
    ),
    "leakage": (
        Unit("leakage", "change of loss on unrelated text (nats a token)", decimals=3),
        "Loss added to unrelated text while the prompt is attached. Nearer to 0 is better.",
    ),
    "dose": (
        Unit("dose", "rank correlation of strength and effect", decimals=2),
        "Whether more of the prompt gives more of the effect: 1 always, 0 not at all.",
    ),
}
#: Of a larger matrix only the commonest confusions are listed.
LISTED = 20


def section(comparison: Comparison) -> Section:
    if not comparison.controls:
        text = "No control measures were made, so whether the prompt decides the output is not known."
        return Section("control", "Control", [Text(text, quiet=True)])
    blocks: list[Block] = [_overview(comparison)]
    blocks += [block for block in (_confusion(comparison), _dose(comparison)) if block is not None]
    return Section("control", "Control", blocks)


def _of(comparison: Comparison, measure: str) -> list[Control]:
    return [
        item
        for item in comparison.controls
        if item.measure == measure and item.contestant in looks(comparison)
    ]


def _overview(comparison: Comparison) -> Figure:
    look, panels, rows = looks(comparison), [], []
    for measure in dict.fromkeys(item.measure for item in comparison.controls):
        u, words = _MEASURES.get(measure, (unit(measure), ""))
        known = [(item, item.value) for item in _of(comparison, measure) if item.value is not None]
        rows += [
            [item.contestant, u.label, u.value(v) + u.interval(item.low, item.high)] for item, v in known
        ]
        if not known:
            continue
        drawn = charts.intervals(
            [
                (
                    look[item.contestant],
                    [charts.Dot(v, item.low, item.high, tip=u.value(v) + u.interval(item.low, item.high))],
                )
                for item, v in known
            ],
            width=charts.PANEL,
            title=u.axis,
            about=words or f"{measure} by method",
            label="",
            say=(u.bare, u.tick),
            line=None if u.suffix else 0.0,
            bounds=u.bounds,
        )
        panels.append(Panel(_panel_title(measure, u), drawn))
    table = Table("Control by method", ["method", "measure", "value (95 % interval)"], rows, right=(2,))
    caption = " ".join(
        f"{measure.capitalize()}: {'share of outputs that ' if u.suffix else ''}{words}"
        for measure, (u, words) in _MEASURES.items()
        if _of(comparison, measure)
    )
    return Figure("controls", "How much the prompt decides", caption, panels, table)


def _panel_title(measure: str, u: Unit) -> str:
    return f"{measure.capitalize()}: {u.axis}"


def _confusion(comparison: Comparison) -> Figure | None:
    swaps = [item for item in _of(comparison, "swap") if item.detail.get("matrix")]
    if not swaps:
        return None
    panels, rows = [], []
    for item in swaps:
        names, matrix = [str(n) for n in item.detail["prompts"]], item.detail["matrix"]
        drawn = charts.heat(
            names,
            matrix,
            width=charts.PANEL,
            title=f"Confusion of prompts, {item.contestant}",
            about="Rows: the prompt given. Columns: the prompt whose answer was given. "
            "Darker is a larger share of the row; on the diagonal the prompt was followed.",
        )
        panels.append(Panel(item.contestant, drawn))
        rows += _counts(item.contestant, names, matrix)
    table = Table(
        "Prompt given and prompt whose answer was given",
        ["method", "prompt given", "answered as", "outputs"],
        rows,
        right=(3,),
    )
    caption = (
        "Prompts swapped on the same inputs. A diagonal means that the prompt decides; a full column, that "
        "one prompt's answer is given whichever prompt is attached."
    )
    return Figure("swap", "Swapped prompts", caption, panels, table)


def _counts(contestant: str, names: list[str], matrix: list[list[float]]) -> list[list[str]]:
    cells = [(matrix[i][j], names[i], names[j]) for i in range(len(names)) for j in range(len(names))]
    if len(names) > charts.READABLE:
        cells = sorted((cell for cell in cells if cell[1] != cell[2]), reverse=True)[:LISTED]
    return [[contestant, given, came, f"{number:g}"] for number, given, came in cells]


def _dose(comparison: Comparison) -> Figure | None:
    look = looks(comparison)
    doses = [
        item for item in _of(comparison, "dose") if item.detail.get("strengths") and item.detail.get("effect")
    ]
    if not doses:
        return None
    pairs = [
        (
            item.contestant,
            [(x, y) for x, y in zip(item.detail["strengths"], item.detail["effect"], strict=False)],
        )
        for item in doses
    ]
    known = [(name, [(x, y) for x, y in points if y is not None]) for name, points in pairs]
    known = [(name, points) for name, points in known if points]
    if not known:
        return None
    effect = str(doses[0].detail.get("effect_name") or "effect")
    xs = sorted({x for _, points in known for x, _ in points})
    drawn = [
        charts.lines(
            [_line(look[name], points) for name, points in known],
            width=width,
            title=f"{effect} by the prompt's strength",
            about="One line a method: the injection is scaled from none to twice its strength.",
            labels=("strength of the prompt (1: as trained)", effect),
            say=(tick, tick),
        )
        for width in (charts.WIDE, charts.NARROW)
    ]
    table = Table(
        f"{effect} by strength",
        ["method", *(tick(x) for x in xs)],
        [[name, *(plain(dict(points).get(x)) for x in xs)] for name, points in known],
        right=range(1, len(xs) + 1),
    )
    caption = "What is injected is scaled from nothing (0) over as trained (1) to twice as strong (2)."
    return Figure("dose", "Dose", caption, [Panel("", *drawn)], table)


def _line(look: Look, points: list[tuple[float, float]]) -> charts.Curve:
    return charts.Curve(look, [(x, y, None, None) for x, y in points])
