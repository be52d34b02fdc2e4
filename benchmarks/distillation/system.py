"""It measures the share of the effect of ten system prompts that 64, 16 and 4 vectors keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .bench import Bench, Result, distilled, errors, median_and_worst, table, whole
from .requests import requests_for

PROMPTS = Path(__file__).parent / "prompts"
LENGTHS = (64, 16, 4)


def measure(bench: Bench) -> list[Result]:
    """Measure every prompt with every number of vectors."""
    files = sorted(PROMPTS.glob("*.txt"), key=lambda file: file.stat().st_size)
    files = [file for file in files if bench.only is None or file.stem in bench.only]
    results = []
    for file in files[:1] if bench.short else files:
        text = file.read_text(encoding="utf-8")[: 60 if bench.short else None]
        for length in bench.lengths:
            name = f"system-{file.stem}-{length}"

            def compute(
                name: str = name, text: str = text, file: Path = file, length: int = length
            ) -> Result:
                requests = requests_for(file.stem)
                result = bench.distil(name, text, requests, vectors=length, seeds=1)
                return {"prompt": file.stem, "length": length, **distilled(result)}

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
            "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * x for x in r["share"])),
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
        table(("vectors", "median", "worst"), over).replace("none | none", "– | –"),
        errors(results),
    ]
    return "\n\n".join(filter(None, parts))
