"""It measures what eight prompts keep when they are attached together: made alone, and trained together.

k prompts are joined as `compose --concat` joins them: with one attention sink, and positions that follow each
other. Without that rule every prompt keeps its own sink.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from .bench import Bench, Result, errors, percent, table, whole
from .requests import requests_for
from .system import names as names_of_prompts
from .system import words

PROMPTS = 8
COUNTS = (1, 2, 4, 8)  # attached at once
WAYS: dict[str, dict[str, Any]] = {"alone": {"apart": True}, "together": {"together": True}}
RULES: dict[str, dict[str, bool]] = {"one": {}, "each its own": {"keep_sinks": True}}
OPTIONS = {"vectors": 16}


def names(bench: Bench) -> list[str]:
    """Return the names of the prompts."""
    return names_of_prompts(bench)


def measure(bench: Bench) -> list[Result]:
    """Distil the prompts in both ways, and measure each with others attached."""
    known = names_of_prompts(bench)
    texts = [name for name in known if name in bench.only] if bench.only else known
    texts = texts[: 2 if bench.short else bench.count or PROMPTS]
    return [bench.once(f"several-{way}", partial(_measured, bench, way, texts)) for way in WAYS]


def report(results: Sequence[Result]) -> str:
    """Format the share that is kept with k prompts attached, and beside that of one alone."""
    rows = []
    for r in whole(results):
        for rule, shares in r["shares"].items():
            cells = [percent(shares[k]) if (k := str(count)) in shares else "–" for count in COUNTS]
            most = max(shares, key=int)
            of_one = f"{shares[most][0] / shares['1'][0]:.2f}"
            rows.append((r["way"], rule, *cells, of_one))
    header = ("trained", "sink", *(f"{count} attached" for count in COUNTS), "most / one")
    return "\n\n".join(filter(None, [table(header, rows), errors(results)]))


def _measured(bench: Bench, way: str, texts: Sequence[str]) -> Result:
    contents = {name: words(name, bench.short) for name in texts}
    rows = [{"request": text, "name": name} for name in texts for text in requests_for(name, bench.short)]
    single = bench.without("seeds")  # several texts are trained with one seed
    like = f"several-{next(iter(WAYS))}"
    result = single.distil(f"several-{way}", contents, rows, like, **OPTIONS, **WAYS[way])
    counts = [count for count in COUNTS if count <= len(texts)]
    return {
        "way": way,
        "prompts": list(texts),
        "shares": {
            rule: {str(k): list(result.attached.share_with(k, **options)) for k in counts}
            for rule, options in RULES.items()
        },
        "each_alone": {name: list(share) for name, share in result.shares.items()},
        "training_seconds": sum(run.outcome.seconds for run in result.runs),
        "n": len(result.attached.examples),
    }
