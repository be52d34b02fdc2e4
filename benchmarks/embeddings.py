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

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import softprompt
from softprompt.evaluation.records import Evaluation
from softprompt.tuned import Tuned

from .embedding.equal_time import WAYS, Bench, bench_of, options, rate_of, served_bytes
from .embedding.sets import SETS
from .training.machine import where

SETTINGS: dict[str, Any] = {"max_input_tokens": 256, "task": "embedding"}
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


def measure(bench: Bench, names: Sequence[str]) -> list[Result]:
    """Train and measure every way on every set; print each result."""
    every = {name: bench.rows(name) for name in names}
    results: list[Result] = []

    def keep(result: Result) -> None:
        results.append(result)
        print(json.dumps(asdict(result)), flush=True)

    for name, rows in every.items():
        for way in WAYS:
            run = bench.tuned(way, name, rows, SETTINGS)
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
            f"| {r.seconds:.0f} | {r.rate or ''} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return its exit code."""
    parser = options(
        "python -m benchmarks.embeddings",
        str(__doc__),
        list(SETS),
        (5000, 500, 1000),
        300.0,
    )
    given = parser.parse_args(argv)
    with bench_of(parser, given) as bench:
        results = measure(bench, given.sets)
        bench.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps([asdict(result) for result in results], indent=1)
        (bench.out / "embeddings.json").write_text(text, encoding="utf-8")
    print(f"{table(results)}\n\n{where()}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
