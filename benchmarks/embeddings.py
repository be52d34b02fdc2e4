"""Measure prompts for embeddings beside LoRA and full fine-tuning, at equal time (docs/embeddings.md).

    python -m benchmarks.embeddings --data DIR [--out runs/embeddings] [--sets banking77 clinc150 …]
    python -m benchmarks.embeddings --short

Sets are cut from DIR. banking77 and clinc150: a customer's request, and the words of its intent. e2e: facts
of a restaurant, and a sentence that tells them. qqp: a question, and its duplicate. squad: a question, and
the paragraph that answers it, where no document of the test rows is trained on. Each way is trained for the
same seconds on the training rows of a set, with a step's pace that a few steps are timed for; the best step
is chosen on dev rows. Before that, half as many seconds more are spent on three learning rates, of which the
best on the dev rows is taken. Then every way ranks the test rows of its own set, and of the other sets, which
it has not seen. A line of JSON is printed for each way and set, and the
table at the end. A run that is in OUT is not run again. `--short` uses made-up rows and a tiny random model:
its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import softprompt
from softprompt.evaluation.records import Evaluation
from softprompt.tuned import Tuned

from .embedding.equal_time import WAYS, Way, rate_of, served_bytes, train_for, tuned
from .embedding.sets import SETS, SPLITS, Row, made_up
from .training.machine import where

CHOSEN_BY = "ndcg_at_10"
LEAST_GAIN = 0.01  # of LoRA in nDCG@10: a share of a smaller gain is noise


@dataclass(frozen=True, slots=True)
class Result:
    """The test scores of one way, trained on one set and measured on one."""

    way: str
    trained: str | None  # None: the plain model
    measured: str
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    rows: int
    steps: int
    seconds: float
    bytes: int  # of the files that are served
    rate: float | None


@dataclass(frozen=True, slots=True)
class Bench:
    """The settings of all runs, which are kept in the folder `out`."""

    data: Path
    out: Path
    model: str
    sets: Sequence[str]
    counts: Sequence[int]  # the most rows of train, dev, test
    seconds: float
    batch: int
    threads: int | None
    seed: int = 0

    def rows(self, name: str) -> dict[str, list[Row]]:
        """Return the rows of a set, drawn by the seed."""
        parts = SETS[name](self.data)
        for split, most in zip(SPLITS, self.counts, strict=True):
            random.Random(f"{name} {split} {self.seed}").shuffle(parts[split])
            parts[split] = parts[split][:most]
        return parts

    def tuned(self, way: Way, name: str, rows: dict[str, list[Row]]) -> Tuned:
        """Train a way on a set for the same seconds as the others, or open the run if it is finished."""

        def train(changes: dict[str, Any], steps: int, output: Path, is_pilot: bool) -> Tuned:
            settings = {"batch_size": self.batch, "seed": self.seed, "threads": self.threads}
            settings |= {"max_input_tokens": 256, "task": "embedding", **changes}
            return train_for(steps, self.model, way.method, rows, output, is_pilot, settings)

        output = self.out / f"{name}-{way.name}".replace(" ", "-")
        return tuned(way, train, self.seconds, output, CHOSEN_BY)

    def results(self) -> list[Result]:
        """Train and measure every way; print each result."""
        every = {name: self.rows(name) for name in self.sets}
        results: list[Result] = []

        def keep(result: Result) -> None:
            results.append(result)
            print(json.dumps(asdict(result)), flush=True)

        for name, rows in every.items():
            for way in WAYS:
                run = self.tuned(way, name, rows)
                if way is WAYS[0]:
                    plain = softprompt.open_prompt(run.artifact.path, plain=True)
                    keep(_result("plain", None, name, plain, plain.evaluate(rows["test"])))
                for other in every:
                    keep(_result(way.name, name, other, run, run.evaluate(every[other]["test"])))
        return results


def _result(way: str, trained: str | None, measured: str, run: Tuned, scores: Evaluation) -> Result:
    training = run.artifact.manifest["training"] if trained else {"steps": 0, "seconds": 0.0}
    return Result(
        way,
        trained,
        measured,
        {name: score.value for name, score in scores.metrics.items()},
        {name: (score.low, score.high) for name, score in scores.metrics.items()},
        scores.n,
        training["steps"],
        training["seconds"],
        served_bytes(run) if trained else 0,
        rate_of(run) if trained else None,
    )


def table(results: Sequence[Result]) -> str:
    """Return the results as a table of Markdown, with each way's share of LoRA's gain in nDCG@10."""
    lines = [
        "| trained on | measured on | way | nDCG@10 | MRR | recall@1 | of LoRA's gain | bytes "
        "| steps | seconds | rate |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|---|---|")
    score = {(r.way, r.trained, r.measured): r.metrics["ndcg_at_10"] for r in results}
    for r in results:
        low, high = r.intervals["ndcg_at_10"]
        plain, lora = score["plain", None, r.measured], score.get(("LoRA", r.trained, r.measured))
        share = (
            ""
            if lora is None or lora - plain < LEAST_GAIN
            else f"{(r.metrics['ndcg_at_10'] - plain) / (lora - plain):.0%}"
        )
        shown = [f"{r.metrics[name]:.3f}" for name in ("mrr", "recall_at_1")]
        lines.append(
            f"| {r.trained or ''} | {r.measured} | {r.way} | {r.metrics['ndcg_at_10']:.3f} "
            f"[{low:.3f}, {high:.3f}] | {' | '.join(shown)} | {share} | {r.bytes:,} | {r.steps} "
            f"| {r.seconds:.0f} "
            f"| {r.rate or ''} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.embeddings", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, help="the folder of the data")
    parser.add_argument("--out", type=Path, default=Path("runs/embeddings"))
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument(
        "--rows", nargs=3, type=int, default=(5000, 500, 1000), metavar=("TRAIN", "DEV", "TEST")
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="of training, for each way")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--short", action="store_true", help="a tiny model and made-up rows")
    given = parser.parse_args(argv)
    if given.short:
        with tempfile.TemporaryDirectory() as folder:
            model, data = made_up(Path(folder))
            bench = Bench(
                data, Path(folder) / "out", str(model), given.sets, (8, 4, 6), 0.01, 4, given.threads
            )
            print(table(bench.results()))
        return 0
    if given.data is None:
        parser.error("--data DIR, or --short")
    bench = Bench(
        given.data, given.out, given.model, given.sets, given.rows, given.seconds, given.batch, given.threads
    )
    results = bench.results()
    print(f"{table(results)}\n\n{where()}")
    given.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps([asdict(result) for result in results], indent=1)
    (given.out / "embeddings.json").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
