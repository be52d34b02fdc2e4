"""Makes the page of a distillation of several texts: each prompt alone, and several attached at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..page import charts
from ..page.blocks import Block, Figure, Panel, Report, Section, Table
from ..page.numbers import plain, several, tick
from ..page.style import COLOURS, SHAPES, Look
from .report_blocks import Facts, curves, provenance, sample_blocks, tests_table, ways_figure, ways_table

NEEDED = ("texts", "at_once", "ways", "by_text", "tests", "history", "samples")


def document(folder: Path, facts: Facts) -> Report:
    """Return the whole report."""
    shares, rows = facts["texts"], facts["measured_requests"]
    kept = facts["at_once"]["1"]
    worst = min(shares, key=lambda name: shares[name][0])
    answer = [
        f"Alone, they keep {_percent(kept)} of the texts' effect on {several(rows, 'request')} that were "
        f"kept apart. The least is kept of {worst}: {_percent(shares[worst])}.",
        *_attached(facts),
    ]
    few = [
        f"{several(table['vectors']['n'], 'request')} about {name} say little of others; give more of them."
        for name, table in facts["by_text"].items()
        if table["vectors"]["n"] < 20
    ]
    return Report(
        title=folder.resolve().name.removesuffix("-distill"),
        subtitle=" · ".join(
            filter(None, [facts.get("model"), facts["method"], several(len(shares), "text")])
        ),
        headline=f"The prompts of {several(len(shares), 'text')} keep {100 * kept[0]:.0f} % of their effect",
        answer=answer,
        notes=[*few, "One seed was trained, so how much chance in training moves the figures is not known."],
        sections=[
            Section("texts", "What is left of each text's effect", _texts(facts)),
            Section("together", "Several prompts attached at once", _at_once(facts)),
            Section("answers", "All texts together", [*_ways(facts)]),
            Section("training", "Training", curves(facts["history"])),
            Section("samples", "Samples", sample_blocks(facts["samples"])),
            Section("provenance", "How it was made", _provenance(facts)),
        ],
    )


def _attached(facts: Facts) -> list[str]:
    """Say what is kept with as many prompts attached as were measured."""
    most = max(facts["at_once"], key=int)
    if most == "1":
        return []
    way = "trained to be attached together" if facts["together"] else "not trained to be attached together"
    return [f"With {most} attached at once they keep {_percent(facts['at_once'][most])}; they were {way}."]


def _percent(kept: Sequence[float]) -> str:
    share, low, high = (100 * value for value in kept)
    return f"{share:.0f} % ({low:.0f} … {high:.0f})"


def _texts(facts: Facts) -> list[Block]:
    shares = facts["texts"]
    rows = [
        (
            Look(name, f"c{i % COLOURS}", SHAPES[i % len(SHAPES)]),
            [charts.Dot(100 * share[0], 100 * share[1], 100 * share[2], tip=f"{name}: {_percent(share)}")],
        )
        for i, (name, share) in enumerate(shares.items())
    ]
    drawn = [
        charts.intervals(
            rows,
            width=width,
            title="Share of each text's effect that its prompt keeps",
            about="The share with its 95 % interval over requests. More is better.",
            label="share kept (%)",
            say=(plain, tick),
        )
        for width in (charts.WIDE, charts.NARROW)
    ]
    table = Table(
        "Share of each text's effect, of its prompt alone",
        ["text", "share kept (95 % interval)"],
        [[name, _percent(share)] for name, share in shares.items()],
        right=(1,),
    )
    caption = "More is better. Lines are 95 % intervals over requests."
    figure = Figure("shares", "What each prompt keeps alone", caption, [Panel("", *drawn)], table)
    of_texts = [ways_table(f"{name}, against its teacher", ways) for name, ways in facts["by_text"].items()]
    return [figure, *of_texts]


def _at_once(facts: Facts) -> list[Block]:
    alone = facts["at_once"]["1"][0]
    rows = [
        [k, _percent(share), f"{share[0] / alone:.2f}" if alone > 0 else "n/a"]
        for k, share in facts["at_once"].items()
    ]
    columns = ["prompts attached", "share kept (95 % interval)", "of one alone"]
    return [Table("By the number of prompts that are attached", columns, rows, right=range(3))]


def _ways(facts: Facts) -> list[Block]:
    ways = facts["ways"]
    return [
        ways_figure(ways),
        ways_table("All ways, against the teachers", ways),
        tests_table(facts["tests"]),
    ]


def _provenance(facts: Facts) -> list[Block]:
    terms = [
        ("model", facts.get("model")),
        ("method", f"{facts['method']}, {facts['vectors']} vectors"),
        ("together", str(facts["together"])),
        ("requests measured on", str(facts["measured_requests"])),
        ("artifacts", ", ".join(facts["artifacts"])),
    ]
    return provenance(facts, terms)
