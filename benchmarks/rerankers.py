"""Measure rerankers beside LoRA and full fine-tuning, at equal time (docs/embeddings.md).

    python -m benchmarks.rerankers --data DIR [--out runs/rerankers] [--sets banking77 clinc150]
    python -m benchmarks.rerankers --short

The plain encoder finds the ten intents that are nearest to a customer's request; a reranker reads the
request with each of them, and sorts them. Rows are the requests with their ten intents; a request whose own
intent is not among the ten is left out, as no order helps it. The first line of a set is the order of the
plain encoder. Each way is trained for the same seconds, after half as many for the search of its learning
rate. The table is printed at the end. A run that is in OUT is not run again. `--short` uses made-up rows and
a tiny random model: its numbers mean nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import softprompt
from softprompt.tuned import Tuned

from .embedding.equal_time import CHOSEN_BY, WAYS, Bench, bench_of, options, served_bytes
from .embedding.sets import SETS, Row
from .training.machine import where

NAMES, FOUND = ("banking77", "clinc150"), 10  # sets whose documents are few; documents of a request
ORDER = "the encoder's order"
TEMPLATE = {"input": "{{ query }} [SEP] {{ document }}", "target": "{{ fits }}"}
SETTINGS: dict[str, Any] = {"task": {"kind": "regression", "query": "query"}, "template": TEMPLATE}


@dataclass(frozen=True, slots=True)
class Result:
    """The test scores of one way to sort the documents of a set's requests."""

    way: str
    measured: str
    ndcg_at_10: float
    interval: tuple[float, float] | None
    recall_at_1: float
    queries: int
    pairs: int = 0  # that are trained on
    steps: int = 0
    seconds: float = 0.0  # of training
    bytes: int = 0  # of the files that are served


def pairs(bench: Bench, name: str) -> dict[str, list[Row]]:
    """Return the rows of each split: a request with each document that the plain encoder finds."""
    requests, parts = bench.rows(name), {}
    documents = sorted({row["positive"] for row in SETS[name](bench.data)["train"]})
    plain = _plain(bench, requests)
    places = plain.encode(documents, document=True)
    for split, chosen in requests.items():
        near = np.argsort(-(plain.encode([row["query"] for row in chosen]) @ places.T), kind="stable")
        parts[split] = [
            {"query": row["query"], "document": documents[i], "fits": int(documents[i] == row["positive"])}
            for row, order in zip(chosen, near[:, :FOUND], strict=True)
            if documents.index(row["positive"]) in order
            for i in order
        ]
    return parts


def measure(bench: Bench, names: Sequence[str]) -> Iterator[Result]:
    """Train and measure every way on every set."""
    for name in names:
        rows = pairs(bench, name)
        yield order_alone(name, rows["test"])
        for way in WAYS:
            run = bench.tuned(way, name, rows, SETTINGS)
            scores = run.evaluate(rows["test"]).metrics
            best = scores[CHOSEN_BY]
            training = run.artifact.manifest["training"]
            work = (len(rows["train"]), training["steps"], training["seconds"])
            first = scores["recall_at_1"].value
            queries = len({row["query"] for row in rows["test"]})
            interval = (best.low, best.high)
            yield Result(way.name, name, best.value, interval, first, queries, *work, served_bytes(run))


def _plain(bench: Bench, requests: Mapping[str, Sequence[Row]]) -> Tuned:
    """Return the plain encoder: one step, whose vectors are not used, writes the folder to open."""
    with tempfile.TemporaryDirectory() as folder:
        rows = {split: chosen[:4] for split, chosen in requests.items()}
        settings = {"task": "embedding", "length": 1}
        run = bench.train("prompt-tuning", rows, 1, Path(folder) / "plain", settings)
        return softprompt.open_prompt(run.artifact.path, plain=True)


def order_alone(name: str, rows: Sequence[Row]) -> Result:
    """Score the order in which the plain encoder found the documents: one of a request's fits."""
    by_query: dict[str, list[int]] = {}
    for row in rows:
        by_query.setdefault(row["query"], []).append(row["fits"])
    ranks = [fits.index(1) + 1 for fits in by_query.values()]
    gains = [1 / np.log2(rank + 1) for rank in ranks]
    first = float(np.mean([rank == 1 for rank in ranks]))
    return Result(ORDER, name, float(np.mean(gains)), None, first, len(ranks))


def table(results: Sequence[Result]) -> str:
    """Return the results as a table of Markdown."""
    lines = [
        "| set | way | nDCG@10 | recall@1 | requests | steps | seconds | bytes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        interval = "" if r.interval is None else " [{:.3f}, {:.3f}]".format(*r.interval)
        lines.append(
            f"| {r.measured} | {r.way} | {r.ndcg_at_10:.3f}{interval} | {r.recall_at_1:.3f} | {r.queries} "
            f"| {r.steps} | {r.seconds:.0f} | {r.bytes:,} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    parser = options("python -m benchmarks.rerankers", str(__doc__), NAMES, (1000, 100, 300), 120.0)
    given = parser.parse_args(argv)
    results = []
    with bench_of(parser, given) as bench:
        for result in measure(bench, given.sets):
            results.append(result)
            print(json.dumps(asdict(result)), flush=True)
    print(f"{table(results)}\n\n{where()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
