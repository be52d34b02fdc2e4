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
from softprompt.artifacts.manifest import BASE
from softprompt.artifacts.manifest import VECTORS as VECTORS_FILE
from softprompt.evaluation.records import Evaluation
from softprompt.tuned import Tuned

from .embedding.sets import SETS, SPLITS, Row, made_up
from .training.machine import where

PILOT = 4  # steps that are timed
SEARCH = 0.5  # of the seconds of training: what the search of the learning rate takes, all rates together
CHOSEN_BY = "ndcg_at_10"
LEAST_GAIN = 0.01  # of LoRA in nDCG@10: a share of a smaller gain is noise


@dataclass(frozen=True, slots=True)
class Way:
    """A way to fit the encoder to a set: a method of the registry, or training of the base itself."""

    name: str
    method: str
    rates: tuple[float, ...]
    settings: dict[str, Any]

    def at(self, rate: float) -> dict[str, Any]:
        """Return the settings with a learning rate of what is trained: the vectors, or the base."""
        base = self.settings.get("base")
        return {**self.settings, "lr": rate} if base is None else {"base": {"mode": base, "lr": rate}}


VECTORS, LORA, FULL = (1e-2, 3e-2, 1e-1), (2e-4, 5e-4, 2e-3), (1e-5, 3e-5, 1e-4)
WAYS = (
    Way("prompt of 5", "prompt-tuning", VECTORS, {"length": 5}),
    Way("prompt of 16", "prompt-tuning", VECTORS, {"length": 16}),
    Way("prefix of 16", "prefix-tuning", VECTORS, {"length": 16}),
    Way("LoRA", "none", LORA, {"base": "lora"}),
    Way("full", "none", FULL, {"base": "full"}),
)


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
        output = self.out / f"{name}-{way.name}".replace(" ", "-")
        if (output / "softprompt.json").exists():
            return softprompt.open_prompt(output)
        with tempfile.TemporaryDirectory() as folder:
            pilot = self._train(way.at(way.rates[0]), way, rows, Path(folder) / "pilot", PILOT)
            pace = _pace(pilot)
            steps = max(1, round(SEARCH * self.seconds / len(way.rates) / pace))
            tried = {
                rate: self._train(way.at(rate), way, rows, Path(folder) / str(rate), steps).metrics
                for rate in way.rates
            }
        best = max(tried, key=lambda rate: tried[rate][CHOSEN_BY])
        return self._train(way.at(best), way, rows, output, max(1, round(self.seconds / pace)))

    def _train(
        self, changes: dict[str, Any], way: Way, rows: dict[str, list[Row]], output: Path, steps: int
    ) -> Tuned:
        settings: dict[str, Any] = {
            "steps": steps,
            "eval_every": max(1, steps // 4),
            "batch_size": self.batch,
            "seed": self.seed,
        }
        settings |= {"max_input_tokens": 256, "threads": self.threads, **changes}
        dev = rows["dev"] if steps > PILOT else rows["dev"][:2]
        return softprompt.tune(
            self.model, way.method, rows["train"], dev=dev, task="embedding", output=output, **settings
        )

    def results(self) -> list[Result]:
        """Train and measure every way; print each result."""
        every = {name: self.rows(name) for name in self.sets}
        results: list[Result] = []

        def keep(result: Result) -> None:
            results.append(result)
            print(json.dumps(asdict(result)), flush=True)

        for name, rows in every.items():
            for way in WAYS:
                tuned = self.tuned(way, name, rows)
                if way is WAYS[0]:
                    plain = softprompt.open_prompt(tuned.artifact.path, plain=True)
                    keep(_result("plain", None, name, plain, plain.evaluate(rows["test"])))
                for other in every:
                    keep(_result(way.name, name, other, tuned, tuned.evaluate(every[other]["test"])))
        return results


def _pace(tuned: Tuned) -> float:
    """Return the seconds of a step."""
    training = tuned.artifact.manifest["training"]
    return max(1e-3, training["seconds"] / training["steps"])


def _rate(tuned: Tuned) -> float:
    """Return the learning rate of a run: of the base where it was trained, else of the vectors."""
    recipe = tuned.artifact.manifest["recipe"]
    trained = recipe["train"] if recipe["base"]["mode"] == "frozen" else recipe["base"]
    return trained["lr"]


def _result(way: str, trained: str | None, measured: str, tuned: Tuned, scores: Evaluation) -> Result:
    training = tuned.artifact.manifest["training"] if trained else {"steps": 0, "seconds": 0.0}
    served = {VECTORS_FILE, BASE} & set(tuned.artifact.manifest["files"]) if trained else ()
    return Result(
        way,
        trained,
        measured,
        {name: score.value for name, score in scores.metrics.items()},
        {name: (score.low, score.high) for name, score in scores.metrics.items()},
        scores.n,
        training["steps"],
        training["seconds"],
        sum((tuned.artifact.path / file).stat().st_size for file in served),
        _rate(tuned) if trained else None,
    )


def table(results: Sequence[Result]) -> str:
    """Return the results as a table of Markdown, with each way's share of LoRA's gain in nDCG@10."""
    lines = [
        "| trained on | measured on | way | nDCG@10 | MRR | recall@1 | of LoRA's gain | bytes "
        "| steps | rate |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
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
