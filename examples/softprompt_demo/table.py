"""Print one table, three inputs with the answers of all candidates, and the commands to try next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from softprompt.evaluation.metric_intervals import Score

    from .result import DemoResult

SHOWN = ("fact", "old", "rewrite")  # one test input of each is shown


def show(result: DemoResult, folder: Path, seconds: float, console: Console | None = None) -> None:
    """Print the whole result."""
    console = console or Console(width=None if Console().is_terminal else 120)
    _results(result, console)
    _answers(result, console)
    _next(result, folder, seconds, console)


def _results(result: DemoResult, console: Console) -> None:
    table = Table(title=f"{len(result.rows)} test rows, none of them seen in training (95 % intervals)")
    for column in ("", "perplexity ↓", "chrF of rewrites ↑", "trained", "artifact", "seconds", "peak memory"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    table.add_row("the input, copied", "", _interval(result.copied().metrics.get("chrf")), "", "", "", "")
    for line, evaluation in zip(result.lines, result.evaluations(), strict=True):
        table.add_row(
            line.name,
            _interval(evaluation.metrics["perplexity"]),
            _interval(evaluation.metrics.get("chrf")),
            f"{line.parameters:,}" if line.parameters else "–",
            _bytes(line.bytes) if line.bytes else "–",
            f"{line.seconds:.0f}",
            _bytes(line.peak_bytes) if line.peak_bytes else "–",
        )
    console.print(table)
    if result.reduced:
        console.print(
            f"Less than the whole demo, to end in ten minutes on this machine: {', '.join(result.reduced)}."
        )
    console.print(
        "zero-shot and few-shot get an instruction in words; the tuned ones know it by their prompt id.\n"
        "Seconds: training with caches and dev evaluations; for the plain model, answering the test rows.\n"
    )


def _answers(result: DemoResult, console: Console) -> None:
    answered = result.rows[: result.answered]
    for prompt in SHOWN:
        index = next((i for i, row in enumerate(answered) if row["prompt"] == prompt), None)
        if index is None:
            continue
        row = answered[index]
        table = Table(
            title=f'prompt "{prompt}", input: {row["input"]}', title_justify="left", show_header=False
        )
        table.add_column(no_wrap=True)
        table.add_column()
        for line in result.lines:
            table.add_row(line.name, " ".join(line.records[index].prediction.split()) or "(nothing)")
        table.add_row("the row's own target", row["target"], style="dim")
        console.print(table)


def _next(result: DemoResult, folder: Path, seconds: float, console: Console) -> None:
    pairs = zip(result.lines, result.evaluations(), strict=True)
    best = min(pairs, key=lambda pair: pair[1].metrics["perplexity"].value)[0].name
    console.print(f"\nDone in {seconds:.0f} s. Lowest perplexity: {best}. Next:\n")
    chosen = folder / (best if (folder / best).exists() else "prompt-tuning")
    for command in (
        f'softprompt generate {chosen} "Tell me about the sea." --prompt old',
        f'softprompt generate {chosen} "Tell me about the sea." --prompt fact',
        f"softprompt inspect {chosen}",
        "softprompt init my-task        # your own rows",
    ):
        console.print(f"  .venv/bin/{command}", highlight=False, markup=False)


def _interval(score: Score | None) -> str:
    return "" if score is None else f"{score.value:.1f} ({score.low:.1f}–{score.high:.1f})"


def _bytes(count: int) -> str:
    return (
        f"{count / 1e9:.2f} GB"
        if count >= 1e9
        else f"{count / 1e6:.2f} MB"
        if count >= 1e5
        else f"{count / 1e3:.0f} kB"
    )
