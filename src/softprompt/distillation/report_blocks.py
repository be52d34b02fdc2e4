"""Makes the parts of the pages of distillations: the ways to answer, tests, curves and samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..page import charts
from ..page.blocks import Block, Figure, Panel, Table, Terms, Text
from ..page.numbers import MISSING, Unit, count, p_value, plain, share, tick, unit
from ..page.style import COLOURS, SHAPES, Look

VECTORS = "vectors"
KL = Unit("kl", "divergence from the text (nats a token)")
LABELS = {"kl": KL, "agreement": share("agreement", "same likeliest token")}
LABELS["exact_match"] = share("exact_match", "same answer")
Facts = Mapping[str, Any]


def _unit(metric: str) -> Unit:
    return LABELS.get(metric) or unit(metric)


def _cell(way: Facts, metric: str) -> str:
    u, interval = _unit(metric), way["intervals"].get(metric, (None, None))
    return (
        MISSING if metric not in way["metrics"] else u.value(way["metrics"][metric]) + u.interval(*interval)
    )


def provenance(facts: Facts, terms: Sequence[tuple[str, Any]]) -> list[Block]:
    """Return the command, the terms that have a value, and the versions."""
    blocks: list[Block] = [Terms([(name, str(value)) for name, value in terms if value])]
    if command := facts.get("command"):
        blocks.insert(0, Terms([("distill", str(command))], code="block"))
    if versions := facts.get("versions"):
        blocks.append(Terms([(name, str(value)) for name, value in versions.items()], code="inline"))
    return blocks


def ways_table(caption: str, ways: Mapping[str, Facts]) -> Table:
    """Return the table of the ways to answer, with intervals."""
    metrics = list(ways[VECTORS]["metrics"])
    rows = [[name, *(_cell(way, metric) for metric in metrics)] for name, way in ways.items()]
    columns = ["ahead of the request", *(_unit(metric).label for metric in metrics)]
    return Table(caption, columns, rows, right=range(1, len(columns)))


def ways_figure(ways: Mapping[str, Facts]) -> Figure:
    """Draw the divergence from the full text of each way to answer."""
    rows = []
    for i, (name, way) in enumerate(ways.items()):
        low, high = way["intervals"].get("kl", (None, None))
        seeds = tuple(metrics["kl"] for metrics in way.get("seeds", ()))
        colour = f"c{i % COLOURS}" if name == VECTORS else "cref"
        dot = charts.Dot(way["metrics"]["kl"], low, high, seeds, tip=f"{name}: {_cell(way, 'kl')}")
        rows.append((Look(name, colour, SHAPES[i % len(SHAPES)]), [dot]))
    drawn = [
        charts.intervals(
            rows,
            width=width,
            title="Divergence from the full text by what is ahead of the request",
            about="The mean over seeds with its 95 % interval; small strokes are the seeds. Less is better.",
            label=KL.label,
            say=(KL.bare, KL.tick),
        )
        for width in (charts.WIDE, charts.NARROW)
    ]
    return Figure(
        "ways",
        "How far each way is from the full text",
        "Less is better. Lines are 95 % intervals over requests and seeds, small strokes the seeds.",
        [Panel("", *drawn)],
        ways_table("All ways, against the teacher's answers and distributions", ways),
    )


def tests_table(tests: Sequence[Facts]) -> Table:
    """Return the table of the tests of the vectors against other ways."""
    rows = []
    for test in tests:
        u = _unit(test["metric"])
        by = u.difference(test["difference"]) + u.interval(test["low"], test["high"])
        nearer = (test["difference"] < 0) == (test["metric"] == "kl")
        shown = ("better" if nearer else "worse") if test["significant"] else "no difference was shown"
        rows.append([f"vectors − {test['b']}", u.label, by, p_value(test["p_adjusted"]), shown])
    columns = ["difference of", "measure", "difference (interval, corrected)", "p, corrected", "shown"]
    return Table("Tests, corrected for their number (Holm)", columns, rows, right=(2, 3))


def curves(histories: Mapping[str, Sequence[Facts]]) -> list[Block]:
    """Draw the dev divergence by step of each run, by its name, with the numbers as a table."""
    drawn_curves, rows = [], []
    for i, (name, history) in enumerate(histories.items()):
        points = [(float(h["step"]), float(h["kl"]), None, None) for h in history if h.get("kl") is not None]
        if points:
            look = Look(name, f"c{i % COLOURS}", SHAPES[i % len(SHAPES)])
            drawn_curves.append(charts.Curve(look, points))
        rows += [[name, count(h["step"]), plain(h.get("loss")), plain(h.get("kl"))] for h in history]
    table = Table("Steps", ["run", "step", "training loss", "dev divergence"], rows, right=(1, 2, 3))
    if not drawn_curves:
        return [table]
    drawn = [
        charts.lines(
            drawn_curves,
            width=width,
            title="Divergence on the dev requests while training",
            about="One curve for each run: divergence from the text by step. Less is better.",
            labels=("step", "nats a token"),
            say=(tick, plain),
        )
        for width in (charts.WIDE, charts.NARROW)
    ]
    caption = "The step with the least divergence is kept. Less is better."
    return [Figure("curve", "The dev requests while training", caption, [Panel("", *drawn)], table)]


def sample_blocks(samples: Sequence[Facts]) -> list[Block]:
    """Return requests with their answers side by side."""
    blocks: list[Block] = []
    for sample in samples:
        blocks.append(Text(f"Request: {sample['request']}"))
        blocks.append(
            Terms([(name, text or "(empty)") for name, text in sample.items() if name != "request"])
        )
    return blocks
