"""Makes the page of a distillation of demonstrations: how well the vectors answer beside the text."""

from __future__ import annotations

from pathlib import Path

from ..page.blocks import Block, Report, Section, Table, Terms, Text
from ..page.numbers import count, plain, seconds, several, unit
from .report_blocks import (
    Facts,
    curves,
    metric_figure,
    provenance,
    sample_blocks,
    tests_table,
    verdict,
    ways_table,
)

TUNED, IN_CONTEXT = "tuned vectors", "in context"
NEEDED = ("ways", "metric", "tests", "history", "samples", "first_token", "seconds")
FEW = 50  # rows: with fewer, the interval says little


def document(folder: Path, facts: Facts) -> Report:
    """Return the whole report."""
    ways, metric = facts["ways"], facts["metric"]
    rows = ways[TUNED]["n"]
    answer = [
        f"On {several(rows, 'row')} that were kept apart, their {unit(metric).label} is "
        f"{_score(ways[TUNED], metric)}, and {_score(ways[IN_CONTEXT], metric)} with the demonstrations in "
        f"context.",
        verdict(facts["tests"], "They are better than:", "No difference was shown, or they are worse:"),
    ]
    notes = [f"{several(rows, 'row')} say little of others; give more of them."] if rows < FEW else []
    notes.append("One seed was trained, so how much chance in training moves the figures is not known.")
    shown = several(facts["demonstrations"], "demonstration")
    return Report(
        title=folder.resolve().name.removesuffix("-distill"),
        subtitle=" · ".join(filter(None, [facts.get("model"), facts["method"], shown])),
        headline=f"{shown} as {several(facts['vectors'], 'vector')}",
        answer=answer,
        notes=notes,
        sections=[
            Section("quality", "How well the vectors answer", _quality(facts)),
            Section("training", "Training", curves({"tuned vectors": facts["history"]}, metric)),
            Section("costs", "Costs", [Terms(_costs(facts))]),
            Section("samples", "Samples", sample_blocks(facts["samples"])),
            Section("provenance", "How it was made", _provenance(facts)),
        ],
    )


def _score(way: Facts, metric: str) -> str:
    u = unit(metric)
    return u.value(way["metrics"][metric]) + u.interval(*way["intervals"].get(metric, (None, None)))


def _quality(facts: Facts) -> list[Block]:
    ways, metric = facts["ways"], facts["metric"]
    losses = [[name, plain(way["target_loss"])] for name, way in ways.items()]
    blocks: list[Block] = [
        metric_figure(ways, metric, TUNED, higher=facts["higher_is_better"]),
        ways_table("All metrics", ways, TUNED),
        Table("Loss of the right answers", ["ahead of the request", "nats a row"], losses, right=(1,)),
    ]
    if facts["tests"]:
        blocks.append(tests_table(facts["tests"]))
    differs = f"{facts['start_differs_by']:.1g} nats a row"
    blocks.append(
        Text(f"The untrained vectors differ from the demonstrations in context by {differs} at most.")
    )
    return blocks


def _costs(facts: Facts) -> list[tuple[str, str]]:
    first = facts["first_token"]
    return [
        ("tokens saved a request", f"{count(facts['tokens_saved'])}; as many vectors are read instead"),
        *((f"first token, {name}", seconds(first[name])) for name in first),
        ("the distillation took", seconds(facts["seconds"])),
    ]


def _provenance(facts: Facts) -> list[Block]:
    answered, unanswered = facts["answered"]
    terms = [
        ("model", facts.get("model")),
        ("method", f"{facts['method']}, {facts['vectors']} vectors"),
        ("leave-one-out", str(facts["leave_one_out"])),
        ("token dropout", str(facts["token_dropout"])),
        ("rows measured on", str(facts["ways"][TUNED]["n"])),
        ("requests without a target", f"{answered} of {unanswered} answered" if unanswered else None),
        ("artifact", facts["artifact"]),
    ]
    return provenance(facts, terms)
