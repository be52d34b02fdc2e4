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


def saved(text_tokens: int, soft_tokens: int) -> str:
    """Say how many tokens each request saves, of which a short text may save none."""
    if text_tokens > 0:
        return f"{count(text_tokens)}; {count(soft_tokens)} vectors are read instead"
    more = f"which has {count(-text_tokens)} tokens more"
    return f"none: the text takes the place of the chat template's usual system text, {more}"


def becomes(text_tokens: int, soft_tokens: int) -> str:
    """Say what becomes of the text's tokens in each request."""
    if text_tokens > 0:
        return f"{count(text_tokens)} tokens a request become {count(soft_tokens)} vectors"
    return f"tokens saved a request: {saved(text_tokens, soft_tokens)}"


def provenance(facts: Facts, terms: Sequence[tuple[str, Any]]) -> list[Block]:
    """Return the command, the terms that have a value, and the versions."""
    blocks: list[Block] = [Terms([(name, str(value)) for name, value in terms if value])]
    if command := facts.get("command"):
        blocks.insert(0, Terms([("distill", str(command))], code="block"))
    if versions := facts.get("versions"):
        blocks.append(Terms([(name, str(value)) for name, value in versions.items()], code="inline"))
    return blocks


def ways_table(caption: str, ways: Mapping[str, Facts], main: str = VECTORS) -> Table:
    """Return the table of the ways to answer, with intervals; the metrics are those of the way `main`."""
    metrics = list(ways[main]["metrics"])
    rows = [[name, *(_cell(way, metric) for metric in metrics)] for name, way in ways.items()]
    columns = ["ahead of the request", *(_unit(metric).label for metric in metrics)]
    return Table(caption, columns, rows, right=range(1, len(columns)))


def ways_figure(ways: Mapping[str, Facts]) -> Figure:
    """Draw the divergence from the full text of each way to answer."""
    table = ways_table("All ways, against the teacher's answers and distributions", ways)
    panel = _ways_panel(ways, "kl", VECTORS, "Divergence from the full text", "Less is better.")
    over = "requests and seeds, small strokes the seeds" if _has_seeds(ways) else "requests"
    caption = f"Less is better. Lines are 95 % intervals over {over}."
    return Figure("ways", "How far each way is from the full text", caption, [panel], table)


def metric_figure(ways: Mapping[str, Facts], metric: str, main: str, *, higher: bool) -> Figure:
    """Draw a metric of each way to answer; `higher` says whether more of it is better."""
    label, better = _unit(metric).label, "More is better." if higher else "Less is better."
    table = ways_table("All ways, on the rows that were kept apart", ways, main)
    panel = _ways_panel(ways, metric, main, label, better)
    caption = f"{better} Lines are 95 % intervals over rows."
    return Figure("ways", f"How well each way answers: {label}", caption, [panel], table)


def _has_seeds(ways: Mapping[str, Facts]) -> bool:
    """Return whether some way has several seeds, which are drawn as strokes of their own."""
    return any(len(way.get("seeds", ())) > 1 for way in ways.values())


def _ways_panel(ways: Mapping[str, Facts], metric: str, main: str, name: str, better: str) -> Panel:
    u, rows = _unit(metric), []
    for i, (title, way) in enumerate(ways.items()):
        low, high = way["intervals"].get(metric, (None, None))
        seeds = tuple(metrics[metric] for metrics in way.get("seeds", ()))
        colour = f"c{i % COLOURS}" if title == main else "cref"
        dot = charts.Dot(way["metrics"][metric], low, high, seeds, tip=f"{title}: {_cell(way, metric)}")
        rows.append((Look(title, colour, SHAPES[i % len(SHAPES)]), [dot]))
    shown = "Each value with its 95 % interval."
    if _has_seeds(ways):
        shown = "The mean over seeds with its 95 % interval; small strokes are the seeds."
    drawn = [
        charts.intervals(
            rows,
            width=width,
            title=f"{name} by what is ahead of the request",
            about=f"{shown} {better}",
            label=u.axis,
            say=(u.bare, u.tick),
        )
        for width in (charts.WIDE, charts.NARROW)
    ]
    return Panel("", *drawn)


def tests_table(tests: Sequence[Facts]) -> Table:
    """Return the table of the tests of the vectors against other ways."""
    rows = []
    for test in tests:
        u = _unit(test["metric"])
        by = u.difference(test["difference"]) + u.interval(test["low"], test["high"])
        shown = (
            ("better" if is_better(test) else "worse") if test["significant"] else "no difference was shown"
        )
        rows.append([f"{test['a']} − {test['b']}", u.label, by, p_value(test["p_adjusted"]), shown])
    columns = ["difference of", "measure", "difference (interval, corrected)", "p, corrected", "shown"]
    return Table("Tests, corrected for their number (Holm)", columns, rows, right=(2, 3))


def is_better(test: Facts) -> bool:
    """Return whether the first way of a test has the better score; files of old do not say which is."""
    return (test["difference"] > 0) == test.get("higher_is_better", test["metric"] != "kl")


def verdict(tests: Sequence[Facts], better: str, rest: str) -> str:
    """Say which ways the vectors were shown to beat; `better` and `rest` precede their names."""
    beaten = [t["b"] for t in tests if t["significant"] and is_better(t)]
    others = [t["b"] for t in tests if t["b"] not in beaten]
    parts = ((better, beaten), (rest, others))
    return " ".join(f"{words} {', '.join(names)}." for words, names in parts if names)


def curves(histories: Mapping[str, Sequence[Facts]], metric: str = "kl") -> list[Block]:
    """Draw a dev score by step of each run, by its name, with the numbers as a table."""
    drawn_curves, rows = [], []
    u = Unit("kl", "divergence (nats a token)") if metric == "kl" else _unit(metric)
    for i, (name, history) in enumerate(histories.items()):
        points = [
            (float(h["step"]), float(h[metric]), None, None) for h in history if h.get(metric) is not None
        ]
        if points:
            look = Look(name, f"c{i % COLOURS}", SHAPES[i % len(SHAPES)])
            drawn_curves.append(charts.Curve(look, points))
        rows += [[name, count(h["step"]), plain(h.get("loss")), u.bare(h.get(metric))] for h in history]
    table = Table("Steps", ["run", "step", "training loss", f"dev {u.axis}"], rows, right=(1, 2, 3))
    if not drawn_curves:
        return [table]
    drawn = [
        charts.lines(
            drawn_curves,
            width=width,
            title=f"Dev {u.label} while training",
            about=f"One curve for each run: {u.label} on the dev rows by step.",
            labels=("step", u.axis),
            say=(tick, u.tick),
        )
        for width in (charts.WIDE, charts.NARROW)
    ]
    caption = "The step with the best dev score is kept."
    return [Figure("curve", "The dev rows while training", caption, [Panel("", *drawn)], table)]


def sample_blocks(samples: Sequence[Facts]) -> list[Block]:
    """Return requests with their answers side by side."""
    blocks: list[Block] = []
    for sample in samples:
        blocks.append(Text(f"Request: {sample['request']}"))
        blocks.append(
            Terms([(name, text or "(empty)") for name, text in sample.items() if name != "request"])
        )
    return blocks
