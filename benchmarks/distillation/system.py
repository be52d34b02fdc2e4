"""It measures the share of the effect of ten system prompts that 64, 16 and 4 vectors keep."""

from __future__ import annotations

from collections.abc import Sequence
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
    results, lengths = [], bench.lengths or LENGTHS
    for prompt in bench.chosen(names(bench)):
        like = f"system-{prompt}-{lengths[0]}"
        for length in lengths:
            name = f"system-{prompt}-{length}"

            def compute(name: str = name, like: str = like, prompt: str = prompt, length: int = length) -> Result:
                options = {"vectors": length, "seeds": 1}
                requests = requests_for(prompt, bench.short)
                result = bench.distil(name, words(prompt, bench.short), requests, like, **options)
                return {"prompt": prompt, "length": length, **distilled(result)}

            results.append(bench.once(name, compute))
    return results


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
