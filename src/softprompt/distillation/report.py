"""Writes the page of a distillation and its Markdown file, from `distill.json` in its folder alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .._system.files import write_text
from ..errors import SoftPromptError
from ..page import html, markdown
from ..page.blocks import Block, Report, Section, Terms, Text
from ..page.numbers import Unit, count, seconds, several
from . import report_demonstrations, report_several
from .report_blocks import (
    VECTORS,
    Facts,
    becomes,
    curves,
    provenance,
    sample_blocks,
    saved,
    tests_table,
    verdict,
    ways_figure,
    ways_table,
)

FILE = "distill.json"
SOURCE = "distill.json alone. The same numbers: report.md"
NEEDED = ("ways", "share", "tests", "seeds", "million_requests")


def folder_of(folder: Path) -> Path | None:
    """Return the folder of a distillation's report: this, or the one beside a prompt; None if none."""
    beside = folder.parent / f"{folder.name}-distill"
    return next((place for place in (folder, beside) if (place / FILE).is_file()), None)


def write(folder: Path) -> Path:
    """Write `report.html` and `report.md` into a distillation's folder, and return the path of the page.

    Raises SoftPromptError where its `distill.json` cannot be read, or is of an earlier version.
    """
    facts = read(folder / FILE)
    report = _kind(facts)[0](folder, facts)
    write_text(folder / "report.md", markdown.render(report))
    page = folder / "report.html"
    write_text(page, html.render(report, source=SOURCE))
    return page


def read(file: Path) -> dict[str, Any]:
    """Read the facts of a report. Raises SoftPromptError as `write` does."""
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        missing = [key for key in _kind(facts)[1] if key not in facts]
    except (OSError, ValueError) as error:
        raise SoftPromptError(
            f"{file} cannot be read", why=str(error), fix="run softprompt distill again: it writes the file"
        ) from None
    if missing:
        raise SoftPromptError(
            f"{file} is of an earlier version",
            why=f"it has no {', '.join(missing)}",
            fix="run softprompt distill again: what it trained is used again, and only the report is made",
        )
    return facts


def _kind(facts: Facts) -> tuple[Callable[[Path, Facts], Report], Sequence[str]]:
    """Return what makes the page of such facts, and the facts that it needs."""
    if "artifacts" in facts:
        return report_several.document, report_several.NEEDED
    if "demonstrations" in facts:
        return report_demonstrations.document, report_demonstrations.NEEDED
    return document, NEEDED


def document(folder: Path, facts: Facts) -> Report:
    """Return the whole report about one text."""
    kept, low, high = (100 * value for value in facts["share"])
    rows = facts["ways"][VECTORS]["n"]
    over = several(len(facts["seeds"]), "seed")
    answer = [
        f"They keep {kept:.0f} % ({low:.0f} … {high:.0f}) of the text's effect on {several(rows, 'request')} "
        f"that were kept apart, with {over}; {becomes(facts['text_tokens'], facts['soft_tokens'])}.",
        _verdict(facts),
    ]
    notes = [f"{several(rows, 'request')} say little of others; give more of them."] if rows < 20 else []
    if len(facts["seeds"]) == 1:
        notes.append("One seed was trained, so how much chance in training moves the figures is not known.")
    sections = [
        Section("quality", "What is left of the text's effect", _quality(facts)),
        Section("training", "Training", curves(_by_seed(facts))),
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
    return verdict(tests, "They are nearer to the text than:", "No gain was shown over:")


def _quality(facts: Facts) -> list[Block]:
    ways = facts["ways"]
    blocks: list[Block] = [
        ways_figure(ways),
        ways_table("All ways, against the teacher", ways),
        tests_table(facts["tests"]),
    ]
    if facts.get("references"):
        blocks.append(ways_table("Against the right answers", facts["references"]))
    for part, table in facts.get("parts", {}).items():
        blocks.append(ways_table(f"{part}: {several(table[VECTORS]['n'], 'request')}", table))
    if leakage := facts.get("leakage"):
        nats = Unit("leakage", "nats a token")
        terms = [
            (f"{name} training", nats.bare(change["value"]) + nats.interval(change["low"], change["high"]))
            for name in ("before", "after")
            if (change := leakage.get(name))
        ]
        blocks += [Text("Change of the loss on unrelated text, in nats a token (0: no harm):"), Terms(terms)]
    return blocks


def _costs(facts: Facts) -> list[Block]:
    million, paid = facts["million_requests"], facts["paid_after_requests"]

    def shown(name: str) -> str:
        cost = million[name]
        return seconds(cost["seconds"]) + (f", price {cost['price']:,.2f}" if "price" in cost else "")

    first = facts["first_token"]
    terms = [
        ("tokens saved a request", saved(facts["text_tokens"], facts["soft_tokens"])),
        *((f"first token, {name}", seconds(first[name])) for name in first),
        *((f"a million requests up to the first token, {name}", shown(name)) for name in million),
        ("the distillation took", seconds(facts["seconds"])),
        *([("the vectors' start took", seconds(facts["start_seconds"]))] if "start_seconds" in facts else []),
        ("paid for after", "never: no time is saved" if paid is None else f"{count(paid)} requests"),
    ]
    if facts.get("price_hour") is not None:
        terms.append(("price an hour", f"{facts['price_hour']:g}; the distillation: {facts['price']:,.2f}"))
    return [Terms(terms)]


def _by_seed(facts: Facts) -> dict[str, Any]:
    return {f"seed {seed}": history for seed, history in facts.get("history", {}).items()}


def _samples(facts: Facts) -> list[Block]:
    blocks, texts = sample_blocks(facts["samples"]), facts.get("texts", {})
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
    return provenance(facts, terms)
