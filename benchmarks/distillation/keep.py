"""It measures what vectors do to unrelated text while they are attached, with and without `train.keep`."""

from __future__ import annotations

from collections.abc import Sequence

from .bench import Bench, Result, distilled, errors, table, whole
from .requests import requests_for
from .system import names, words

TEXTS = ("pirate", "json_only", "teacher", "support")
SHARES = (0.0, 0.02, 0.05)  # of general text among the training tokens


def measure(bench: Bench) -> list[Result]:
    """Measure some system prompts with and without general text."""
    results = []
    for text in bench.chosen(names(bench) if bench.only else TEXTS):
        for share in SHARES:
            name = f"keep-{text}-{share}"

            def compute(name: str = name, text: str = text, share: float = share) -> Result:
                options = {"vectors": 16, "seeds": 1, "keep": share}
                result = bench.distil(
                    name, words(text, bench.short), requests_for(text, bench.short), **options
                )
                return {
                    "prompt": text,
                    "keep": share,
                    "leakage": result.comparison.leakage,
                    **distilled(result),
                }

            results.append(bench.once(name, compute))
    return results


def report(results: Sequence[Result]) -> str:
    """Format the change on unrelated text beside the loss of the task."""
    rows = [
        (
            r["prompt"],
            r["keep"],
            f"{r['leakage']['after']['value']:.3f}" if r["leakage"] else "–",
            f"{r['kl']['vectors']:.4f}",
        )
        for r in whole(results)
    ]
    header = ("prompt", "keep", "unrelated text, nats a token", "from the text, nats a token")
    return "\n\n".join(filter(None, [table(header, rows), errors(results)]))
