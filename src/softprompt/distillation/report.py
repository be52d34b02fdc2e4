"""Writes the page of a distillation and its Markdown file, from `distill.json` in its folder alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._system.files import write_text
from ..errors import SoftPromptError
from ..page import charts, html, markdown
from ..page.blocks import Block, Figure, Panel, Report, Section, Table, Terms, Text
from ..page.numbers import MISSING, Unit, count, p_value, plain, seconds, several, share, tick, unit
from ..page.style import COLOURS, SHAPES, Look

FILE = "distill.json"
SOURCE = "distill.json alone. The same numbers: report.md"
VECTORS, NONE = "vectors", "no text"
KL = Unit("kl", "divergence from the text (nats a token)")
LABELS = {"kl": KL, "agreement": share("agreement", "same likeliest token")}
LABELS["exact_match"] = share("exact_match", "same answer")
Facts = Mapping[str, Any]


def folder_of(folder: Path) -> Path | None:
    """Return the folder of a distillation's report: this, or the one beside a prompt; None if none."""
    beside = folder.parent / f"{folder.name}-distill"
    return next((place for place in (folder, beside) if (place / FILE).is_file()), None)


def write(folder: Path) -> Path:
    """Write `report.html` and `report.md` into a distillation's folder, and return the path of the page.

    Raises SoftPromptError where its `distill.json` cannot be read, or is of an earlier version.
    """
    report = document(folder, read(folder / FILE))
    write_text(folder / "report.md", markdown.render(report))
    page = folder / "report.html"
    write_text(page, html.render(report, source=SOURCE))
    return page


def read(file: Path) -> dict[str, Any]:
    """Read the facts of a report. Raises SoftPromptError as `write` does."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        missing = [key for key in ("ways", "share", "tests", "seeds", "million_requests") if key not in facts]
    except (OSError, ValueError) as error:
        raise SoftPromptError(
            f"{file} cannot be read", why=str(error), fix="run softprompt distill again: it writes the file"
        ) from None
    if kind := next((key for key in ("artifacts", "demonstrations") if key in facts), None):
        raise SoftPromptError(
            f"there is no page about {'several texts' if kind == 'artifacts' else 'demonstrations'} yet",
            why="the page shows what vectors keep of one text",
            fix=f"the figures are in {file}; softprompt distill prints them again",
        )
    if missing:
        raise SoftPromptError(
            f"{file} is of an earlier version",
            why=f"it has no {', '.join(missing)}",
            fix="run softprompt distill again: what it trained is used again, and only the report is made",
        )
    return facts


def document(folder: Path, facts: Facts) -> Report:
    """Return the whole report."""
    kept, low, high = (100 * value for value in facts["share"])
    rows = facts["ways"][VECTORS]["n"]
    over = several(len(facts["seeds"]), "seed")
    answer = [
        f"They keep {kept:.0f} % ({low:.0f} … {high:.0f}) of the text's effect on {several(rows, 'request')} "
        f"that were kept apart, with {over}; {count(facts['text_tokens'])} tokens a request become "
        f"{count(facts['soft_tokens'])} vectors.",
        _verdict(facts),
    ]
    notes = [f"{several(rows, 'request')} say little of others; give more of them."] if rows < 20 else []
    if len(facts["seeds"]) == 1:
        notes.append("One seed was trained, so how much chance in training moves the figures is not known.")
    sections = [
        Section("quality", "What is left of the text's effect", _quality(facts)),
        Section("training", "Training", _training(facts)),
        Section("costs", "Costs", _costs(facts)),
        Section("samples", "Samples", _samples(facts)),
        Section("provenance", "How it was made", _provenance(facts)),
    ]
    return Report(
        title=folder.resolve().name.removesuffix("-distill"),
        subtitle=" · ".join(filter(None, [facts.get("model"), facts.get("method"), over])),
        headline=f"The vectors keep {kept:.0f} % of the text's effect",
        answer=answer,
        notes=notes,
        sections=sections,
    )


def _verdict(facts: Facts) -> str:
    """Say which ways of as few tokens the vectors were shown to beat."""
    tests = [test for test in facts["tests"] if test["metric"] == "kl"]
    better = [t["b"] for t in tests if t["significant"] and t["difference"] < 0]
    others = [t["b"] for t in tests if t["b"] not in better]
    shown = f"They are nearer to the text than: {', '.join(better)}." if better else ""
    rest = f"No gain was shown over: {', '.join(others)}." if others else ""
    return " ".join(filter(None, [shown, rest]))


def _unit(metric: str) -> Unit:
    return LABELS.get(metric) or unit(metric)


def _cell(way: Facts, metric: str) -> str:
    u, interval = _unit(metric), way["intervals"].get(metric, (None, None))
    return (
        MISSING if metric not in way["metrics"] else u.value(way["metrics"][metric]) + u.interval(*interval)
    )


def _table(caption: str, ways: Mapping[str, Facts]) -> Table:
    metrics = list(ways[VECTORS]["metrics"])
    rows = [[name, *(_cell(way, metric) for metric in metrics)] for name, way in ways.items()]
    columns = ["ahead of the request", *(_unit(metric).label for metric in metrics)]
    return Table(caption, columns, rows, right=range(1, len(columns)))


def _quality(facts: Facts) -> list[Block]:
    ways = facts["ways"]
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
    blocks: list[Block] = [
        Figure(
            "ways",
            "How far each way is from the full text",
            "Less is better. Lines are 95 % intervals over requests and seeds, small strokes the seeds.",
            [Panel("", *drawn)],
            _table("All ways, against the teacher's answers and distributions", ways),
        ),
        _table("All ways, against the teacher", ways),
        _tests(facts),
    ]
    if facts.get("references"):
        blocks.append(_table("Against the right answers", facts["references"]))
    for part, table in facts.get("parts", {}).items():
        blocks.append(_table(f"{part}: {several(table[VECTORS]['n'], 'request')}", table))
    if leakage := facts.get("leakage"):
        nats = Unit("leakage", "nats a token")
        terms = [
            (f"{name} training", nats.bare(change["value"]) + nats.interval(change["low"], change["high"]))
            for name in ("before", "after")
            if (change := leakage.get(name))
        ]
        blocks += [Text("Change of the loss on unrelated text, in nats a token (0: no harm):"), Terms(terms)]
    return blocks


def _tests(facts: Facts) -> Table:
    rows = []
    for test in facts["tests"]:
        u = _unit(test["metric"])
        by = u.difference(test["difference"]) + u.interval(test["low"], test["high"])
        nearer = (test["difference"] < 0) == (test["metric"] == "kl")
        shown = ("better" if nearer else "worse") if test["significant"] else "no difference was shown"
        rows.append([f"vectors − {test['b']}", u.label, by, p_value(test["p_adjusted"]), shown])
    columns = ["difference of", "measure", "difference (interval, corrected)", "p, corrected", "shown"]
    return Table("Tests, corrected for their number (Holm)", columns, rows, right=(2, 3))


def _training(facts: Facts) -> list[Block]:
    curves, rows = [], []
    for i, (seed, history) in enumerate(facts.get("history", {}).items()):
        points = [(float(h["step"]), float(h["kl"]), None, None) for h in history if h.get("kl") is not None]
        if points:
            look = Look(f"seed {seed}", f"c{i % COLOURS}", SHAPES[i % len(SHAPES)])
            curves.append(charts.Curve(look, points))
        rows += [
            [f"seed {seed}", count(h["step"]), plain(h.get("loss")), plain(h.get("kl"))] for h in history
        ]
    table = Table("Steps", ["seed", "step", "training loss", "dev divergence"], rows, right=(1, 2, 3))
    if not curves:
        return [table]
    drawn = [
        charts.lines(
            curves,
            width=width,
            title="Divergence on the dev requests while training",
            about="One curve for each seed: divergence from the text by step. Less is better.",
            labels=("step", "nats a token"),
            say=(tick, plain),
        )
        for width in (charts.WIDE, charts.NARROW)
    ]
    caption = "The step with the least divergence is kept, of the best seed. Less is better."
    return [Figure("curve", "The dev requests while training", caption, [Panel("", *drawn)], table)]


def _costs(facts: Facts) -> list[Block]:
    million, paid = facts["million_requests"], facts["paid_after_requests"]

    def shown(name: str) -> str:
        cost = million[name]
        return seconds(cost["seconds"]) + (f", price {cost['price']:,.2f}" if "price" in cost else "")

    first = facts["first_token"]
    terms = [
        ("tokens saved a request", f"{count(facts['text_tokens'])} ({facts['soft_tokens']} vectors instead)"),
        *((f"first token, {name}", seconds(first[name])) for name in first),
        *((f"a million requests up to the first token, {name}", shown(name)) for name in million),
        ("the distillation took", seconds(facts["seconds"])),
        *([("the vectors' start took", seconds(facts["start_seconds"]))] if "start_seconds" in facts else []),
        ("paid for after", "never: no time is saved" if paid is None else f"{count(paid)} requests"),
    ]
    if facts.get("price_hour") is not None:
        terms.append(("price an hour", f"{facts['price_hour']:g}; the distillation: {facts['price']:,.2f}"))
    return [Terms(terms)]


def _samples(facts: Facts) -> list[Block]:
    blocks: list[Block] = []
    for sample in facts["samples"]:
        blocks.append(Text(f"Request: {sample['request']}"))
        blocks.append(
            Terms([(name, text or "(empty)") for name, text in sample.items() if name != "request"])
        )
    texts = facts.get("texts", {})
    return [*blocks, Text("The texts of as few tokens:"), Terms(list(texts.items()))] if texts else blocks


def _provenance(facts: Facts) -> list[Block]:
    complete, every = facts["answered"]
    terms = [
        ("model", facts.get("model")),
        ("method", f"{facts['method']}, {facts['vectors']} vectors"),
        ("seeds", ", ".join(map(str, facts["seeds"])) + f"; kept: {facts['seeds'][0]}"),
        ("teacher's answers", f"{complete} of {every} are complete; the others were cut"),
        ("requests measured on", str(facts["ways"][VECTORS]["n"])),
        ("artifact", facts["artifact"]),
    ]
    blocks: list[Block] = [Terms([(name, str(value)) for name, value in terms if value])]
    if command := facts.get("command"):
        blocks.insert(0, Terms([("distill", str(command))], code="block"))
    if versions := facts.get("versions"):
        blocks.append(Terms([(name, str(value)) for name, value in versions.items()], code="inline"))
    return blocks
