"""The printed report of a distillation: what the vectors keep, what is saved, and samples side by side."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from .output import duration, size, table

if TYPE_CHECKING:
    from ..distillation.run import Distilled

SHOWN = 200  # characters of a sample
FEW = 20  # requests: with fewer, the interval says little


def _figure(value: float | None) -> str:
    """Write a figure with three decimals: what rounding leaves of 0 is 0."""
    return "n/a" if value is None else f"{value + 0.0:.3f}".replace("-0.000", "0.000")


def _short(text: str) -> str:
    """Return a text in one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]} …"


def report_text(result: Distilled) -> str:
    """Return the report as the command prints it."""
    comparison, path = result.comparison, result.run.artifact.path

    share, low, high = (100 * value for value in comparison.share)
    rows: list[tuple[Any, ...]] = [
        ("ahead of the request", "nats from the text", "same token", "chrF", "same answer")
    ]
    for name, way in comparison.ways.items():
        metrics = way["metrics"]
        rows.append(
            (name, *(_figure(metrics.get(key)) for key in ("kl", "agreement", "chrf", "exact_match")))
        )
    first = comparison.first_token
    paid = comparison.paid_after
    facts = [
        ("artifact", f"{path} ({size(result.run.artifact.bytes)})"),
        (
            "tokens saved a request",
            f"{comparison.text_tokens}; {comparison.soft_tokens} vectors are read instead",
        ),
        (
            "first token",
            f"{1e3 * first['text']:.0f} ms with the text, {1e3 * first['vectors']:.0f} ms with the vectors",
        ),
        (
            "a million requests",
            f"{duration(1e6 * first['text'])} of this machine with the text, "
            f"{duration(1e6 * first['vectors'])} with the vectors, up to the first token",
        ),
        (
            "took",
            duration(comparison.seconds)
            + (
                f"; paid for after {paid:,.0f} requests"
                if paid is not None
                else "; the vectors save no time here"
            ),
        ),
        (
            "teacher's answers",
            f"{comparison.answered[0]} of {comparison.answered[1]} are complete: {result.folder}",
        ),
    ]
    samples = []
    for sample in comparison.samples:
        samples += ["", f"request: {_short(sample['request'])}"]
        samples += [f"  {name + ':':<9} {_short(sample[name])}" for name in ("text", "vectors", "no text")]
    folder = shlex.quote(str(path))
    n = comparison.ways["vectors"]["n"]
    few = [f"note: {n} requests say little of others; give more of them"] if n < FEW else []
    return "\n".join(
        [
            f"the vectors keep {share:.0f} % of the text's effect [{low:.0f}, {high:.0f}] "
            f"on {n} requests that were kept apart",
            *few,
            table(rows, right=range(1, 5)),
            "",
            table(facts),
            *samples,
            "",
            "next:",
            f'  softprompt generate {folder} "your request"',
            f"  softprompt eval {folder} --data {shlex.quote(str(result.folder / 'requests.jsonl'))}",
            f"  softprompt serve {folder}",
        ]
    )
