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

import argparse
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import softprompt
from softprompt.tuned import Tuned

from .embedding.equal_time import WAYS, Way, served_bytes, train_for, tuned
from .embedding.sets import SETS, SPLITS, Row, made_up
from .training.machine import where

NAMES, FOUND = ("banking77", "clinc150"), 10  # sets whose documents are few; documents of a request
CHOSEN_BY, ORDER = "ndcg_at_10", "the encoder's order"
TEMPLATE = {"input": "{{ query }} [SEP] {{ document }}", "target": "{{ fits }}"}


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


@dataclass(frozen=True, slots=True)
class Bench:
    """The settings of all runs, which are kept in the folder `out`."""

    data: Path
    out: Path
    model: str
    counts: Sequence[int]  # the most requests of train, dev, test
    seconds: float
    batch: int
    threads: int | None
    seed: int = 0

    def pairs(self, name: str) -> dict[str, list[Row]]:
        """Return the rows of each split: a request with each document that the plain encoder finds."""
        parts: dict[str, list[Row]] = {}
        requests = SETS[name](self.data)
        documents = sorted({row["positive"] for row in requests["train"]})
        plain = self._plain(requests)
        places = plain.encode(documents, document=True)
        for split, most in zip(SPLITS, self.counts, strict=True):
            random.Random(f"{name} {split} {self.seed}").shuffle(requests[split])
            chosen = requests[split][:most]
            near = np.argsort(-(plain.encode([row["query"] for row in chosen]) @ places.T), kind="stable")
            parts[split] = []
            for row, order in zip(chosen, near[:, :FOUND], strict=True):
                right = documents.index(row["positive"])
                if right in order:
                    parts[split] += [
                        {"query": row["query"], "document": documents[i], "fits": int(i == right)}
                        for i in order
                    ]
        return parts

    def tuned(self, way: Way, name: str, rows: dict[str, list[Row]]) -> Tuned:
        """Train a way on a set for the same seconds as the others, or open the run if it is finished."""

        def train(changes: dict[str, Any], steps: int, output: Path, is_pilot: bool) -> Tuned:
            settings = {"batch_size": self.batch, "seed": self.seed, "threads": self.threads}
            settings |= {"task": {"kind": "regression", "query": "query"}, "template": TEMPLATE, **changes}
            return train_for(steps, self.model, way.method, rows, output, is_pilot, settings)

        return tuned(way, train, self.seconds, self.out / f"{name}-{way.name}".replace(" ", "-"), CHOSEN_BY)

    def results(self, names: Sequence[str]) -> Iterator[Result]:
        """Train and measure every way on every set."""
        for name in names:
            rows = self.pairs(name)
            yield order_alone(name, rows["test"])
            for way in WAYS:
                run = self.tuned(way, name, rows)
                scores = run.evaluate(rows["test"]).metrics
                best = scores[CHOSEN_BY]
                interval = (best.low, best.high)
                training = run.artifact.manifest["training"]
                work = (len(rows["train"]), training["steps"], training["seconds"])
                first = scores["recall_at_1"].value
                queries = len({row["query"] for row in rows["test"]})
                yield Result(way.name, name, best.value, interval, first, queries, *work, served_bytes(run))

    def _plain(self, requests: dict[str, list[Row]]) -> Tuned:
        """Return the plain encoder: one step, whose vectors are not used, writes the folder to open."""
        with tempfile.TemporaryDirectory() as folder:
            rows = {split: requests[split][:4] for split in SPLITS}
            settings: dict[str, Any] = {"task": "embedding", "threads": self.threads, "length": 1}
            run = train_for(1, self.model, "prompt-tuning", rows, Path(folder) / "plain", True, settings)
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
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rerankers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, help="the folder of the data")
    parser.add_argument("--out", type=Path, default=Path("runs/rerankers"))
    parser.add_argument("--sets", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument(
        "--requests", nargs=3, type=int, default=(1000, 100, 300), metavar=("TRAIN", "DEV", "TEST")
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="of training, for each way")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--short", action="store_true", help="a tiny model and made-up rows")
    given = parser.parse_args(argv)
    if given.data is None and not given.short:
        parser.error("--data DIR, or --short")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            given.data, given.out, given.model, given.requests, given.seconds, given.batch, given.threads
        )
        if given.short:
            model, data = made_up(Path(folder))
            bench = Bench(data, Path(folder) / "out", str(model), (8, 4, 6), 0.01, 4, given.threads)
        results = []
        for result in bench.results(given.sets):
            results.append(result)
            print(json.dumps(asdict(result)), flush=True)
    print(f"{table(results)}\n\n{where()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
