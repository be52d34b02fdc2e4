"""`softprompt models` tries what works on which family of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .output import Json, Reply, log, table

if TYPE_CHECKING:
    from ..lm.support_matrix import Report

ROWS_RUN = {"any": "any batch", "lengths": "of one length", "one": "one by one"}
COLUMNS = ("soft before", "soft after", "soft decoder", "prefix before", "prefix after")


def models(
    families: Annotated[
        list[str] | None, typer.Argument(help="Families (transformers' model_type); all by default.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Try this model instead: hub id, folder, GGUF file or alias.")
    ] = None,
    markdown: Annotated[bool, typer.Option(help="Print the page docs/models.md.")] = False,
    json: Json = False,
) -> Reply:
    """Try what works on each family of models, and say why not.

    Soft prompts and prefixes are run on a tiny random model of each family, or on a model of yours.

    \b
    Example:
      softprompt models
      softprompt models llama mamba t5
      softprompt models --model ./my-model
    """
    from .._system.progress import track
    from ..errors import unknown
    from ..lm.families import FAMILIES
    from ..lm.support_matrix import survey, survey_model

    for family in families or ():
        if family not in FAMILIES:
            raise unknown("family", family, FAMILIES, fix="or try a model of it: softprompt models --model …")
    if model is not None:
        from ..lm.loading import load

        reports = [survey_model(load(model, dtype="float32"))]
    else:
        chosen = families or list(FAMILIES)
        log(f"{len(chosen)} tiny random models, a fraction of a second each")
        reports = [survey(family) for family in track(chosen, "trying families")]
    return Reply({"models": [asdict(r) for r in reports]}, page(reports) if markdown else _text(reports))


def page(reports: Sequence[Report]) -> str:
    """Return the reports as a Markdown page."""
    notes = _notes(reports)
    head = ["family", *COLUMNS, "inputs kept", "positions", "attention layers", "rows run"]
    lines = [_TITLE, "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join([f"`{r.family}`", *_cells(r, notes)]) + " |" for r in reports]
    lines += ["", *(f"{number}. {reason}." for reason, number in notes.items())]
    return "\n".join(lines)


def _text(reports: Sequence[Report]) -> str:
    notes = _notes(reports)
    rows = [("family", *COLUMNS, "inputs kept", "positions", "layers", "rows run")]
    rows += [(r.family, *_cells(r, notes)) for r in reports]
    return "\n".join(
        [table(rows), "", *(f"  {number}. {reason}" for reason, number in notes.items())]
    ).rstrip()


def _notes(reports: Sequence[Report]) -> dict[str, int]:
    """Number the reasons from 1, in the order in which they occur."""
    reasons = [
        reason for r in reports for reason in (*r.results.values(), r.cache, r.length, r.failed) if reason
    ]
    return {reason: number for number, reason in enumerate(dict.fromkeys(reasons), 1)}


def _cells(report: Report, notes: dict[str, int]) -> list[str]:
    def cell(reason: str | None) -> str:
        return "–" if reason is None else f"no ({notes[reason]})" if reason else "exact"

    if report.failed:
        return [f"no ({notes[report.failed]})" for _ in COLUMNS] + ["–"] * 4
    kept = f"no ({notes[report.cache]})" if report.cache else "yes"
    results = [cell(report.results.get(name)) for name in COLUMNS]
    positions = report.positions + (f" ({notes[report.length]})" if report.length else "")
    layers = f"{report.attended} of {report.layers}"
    return [*results, kept, positions, layers, ROWS_RUN[report.batching or "any"]]


_TITLE = """\
# What works on which family

`softprompt models` prints this table: it makes a tiny random model of each family, probes it as every model
is probed on load, and runs each kind of injection on rows of unlike lengths, in a batch and alone, computed
anew and decoded step by step by transformers' own `generate`. **exact**: all of these agree (to 2e-5 of the
logits' size in float32, and token for token). **no**: it is refused with the reason below, never ignored.
This page is `softprompt models --markdown`, with transformers 5.23; a test compares.

A family that is not here is probed in the same way when it is loaded; `softprompt models --model NAME` tries
one. *Soft*: soft tokens (prompt-tuning, p-tuning, …). *Prefix*: keys and values (prefix-tuning,
generated-prefix, llama-adapter). *Inputs kept*: training a prompt placed after the input computes the inputs'
keys and values once. *Attention layers*: those that take a prefix, of all (cross-attention counted).
*Rows run*: which rows share a pass. Rows *of one length* do where answers depend on padding, rows go *one by
one* where answers depend on neighbours; the answers are the same, and take more passes.
"""
