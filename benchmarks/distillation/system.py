"""It measures the share of the effect of ten system prompts that 64, 16 and 4 vectors keep."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .bench import Bench, Result, distilled, errors, median_and_worst, percent, table, whole
from .requests import requests_for

PROMPTS = Path(__file__).parent / "prompts"
LENGTHS = (64, 16, 4)


def names(bench: Bench) -> list[str]:
    """Return the names of the prompts, the shortest first."""
    return [file.stem for file in sorted(PROMPTS.glob("*.txt"), key=lambda file: file.stat().st_size)]


def words(name: str, short: bool) -> str:
    """Return the text of a prompt; a part of it in the short form."""
    return (PROMPTS / f"{name}.txt").read_text(encoding="utf-8")[: 60 if short else None]


def measure(bench: Bench) -> list[Result]:
    """Measure every prompt with every number of vectors."""
    lengths = bench.lengths or LENGTHS
    return [
        bench.once(f"system-{prompt}-{length}", partial(_distilled, bench, prompt, length, lengths[0]))
        for prompt in bench.chosen(names(bench))
        for length in lengths
    ]


def _distilled(bench: Bench, prompt: str, length: int, answered: int) -> Result:
    """Turn a prompt into vectors. Its run with `answered` vectors has the teacher's answers."""
    text, requests = words(prompt, bench.short), requests_for(prompt, bench.short)
    name, like = (f"system-{prompt}-{vectors}" for vectors in (length, answered))
    result = bench.distil(name, text, requests, like, vectors=length, seeds=1)
    return {"prompt": prompt, "length": length, **distilled(result)}


def report(results: Sequence[Result]) -> str:
    """Format the share for each prompt and length, and the median and worst for each length."""
    good = whole(results)
    rows = [
        (
            r["prompt"],
            r["text_tokens"],
            r["length"],
            percent(r["share"]),
            r["n"],
        )
        for r in good
    ]
    over = [
        (length, median_and_worst([r["share"][0] for r in good if r["length"] == length]))
        for length in sorted({r["length"] for r in good}, reverse=True)
    ]
    parts = [
        table(("prompt", "tokens", "vectors", "share kept", "requests"), rows),
        table(("vectors", "median", "worst"), over),
        errors(results),
    ]
    return "\n\n".join(filter(None, parts))
