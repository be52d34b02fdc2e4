"""Measure how well each method learns SST-2 sentences: the mean over seeds on held-out rows.

    python -m benchmarks.quality --data DIR [--out runs/quality] [--only prompt-tuning/after] [--seeds 0 1 2]

`DIR` holds train.jsonl and validation.jsonl with `input` and `target`. Every run has its own
process and appends one line to OUT/results.jsonl; runs that are in that file are skipped. The dev rows
that choose the checkpoint are split from the training rows; validation.jsonl is read once, at the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softprompt.data.example import Example
    from softprompt.training.prepare import Prepared

SENTIMENT: dict[str, dict[str, Any]] = {
    "data": {"limit": 1000},
    "template": {"input": "Review: {{ input }}\nSentiment:"},
    "task": {"kind": "classification", "labels": ["negative", "positive"]},
}

#: Four invented reviews ahead of the input. They cost no step: the input's keys and values are cached.
DEMONSTRATIONS = (
    "Review: a delight from start to finish .\nSentiment: positive\n\n"
    "Review: two hours i will never get back .\nSentiment: negative\n\n"
    "Review: the cast is wonderful and the story moves .\nSentiment: positive\n\n"
    "Review: flat , noisy and far too long .\nSentiment: negative\n\n"
)

#: Each contestant overrides parts of SENTIMENT. The steps keep training under five minutes on two cores.
CONTESTANTS: dict[str, dict[str, dict[str, Any]]] = {
    "prompt-tuning/after": {
        "template": {"input": "Review: {{ input }}"},
        "method": {
            "name": "prompt-tuning",
            "placement": "after",
            "length": 8,
            "init": "text",
            "text": "\nThe overall sentiment of this review is",
        },
        "train": {"steps": 150, "lr": 1e-2},
    },
    "prefix-tuning/after": {
        "template": {"input": DEMONSTRATIONS + SENTIMENT["template"]["input"]},
        "method": {"name": "prefix-tuning", "placement": "after"},
        "train": {"steps": 200},
    },
    "generated-prefix/after": {
        "template": {"input": DEMONSTRATIONS + SENTIMENT["template"]["input"]},
        "method": {"name": "generated-prefix", "placement": "after"},
        "train": {"steps": 400, "lr": 2e-3},
    },
    "prompt-tuning/before": {
        "method": {"name": "prompt-tuning", "placement": "before"},
        "train": {"steps": 120, "batch_size": 16},
    },
    "prefix-tuning/before": {
        "method": {"name": "prefix-tuning", "placement": "before"},
        "train": {"steps": 120, "batch_size": 16},
    },
    "lora": {
        "method": {"name": "none"},
        "base": {"mode": "lora"},
        "train": {"steps": 120, "batch_size": 16},
    },
    "full": {
        "method": {"name": "none"},
        "base": {"mode": "full"},
        "train": {"steps": 80, "batch_size": 16},
    },
}
REFERENCES = {"zero-shot": 0, "8-shot": 8}  # the plain model, with so many demonstrations


def recipe(name: str, data: Path, seed: int, out: Path) -> dict[str, Any]:
    """Return the recipe of one run, as a user would write it."""
    parts = CONTESTANTS[name]
    return {
        "data": {**SENTIMENT["data"], "train": str((data / "train.jsonl").resolve())},
        "template": parts.get("template", SENTIMENT["template"]),
        "task": SENTIMENT["task"],
        "method": parts["method"],
        "base": parts.get("base", {}),
        "train": {**parts.get("train", {}), "seed": seed},
        "output": str(out / name.replace("/", "-") / str(seed)),
    }


def run_one(name: str, data: Path, seed: int, out: Path) -> dict[str, Any]:
    """Train, score validation.jsonl, and return the result."""
    from softprompt.config.load import recipe_from_dict
    from softprompt.data.sources import read_rows
    from softprompt.training.prepare import prepare
    from softprompt.training.tune import tune

    started = time.perf_counter()
    settings = recipe_from_dict(recipe(name, data, seed, out))
    prepared = prepare(settings)
    run = tune(prepared, overwrite=True)
    seconds = time.perf_counter() - started
    validation = read_rows(str(data / "validation.jsonl"), split="validation")
    return {
        "contestant": name,
        "seed": seed,
        **_accuracy(prepared, prepared.encoder.encode_rows(validation)),
        "train_seconds": round(run.outcome.seconds, 1),
        "seconds": round(seconds, 1),
        "steps": run.outcome.step,
        "best_step": run.outcome.best_step,
        "trained_parameters": prepared.trained_parameters,
        "artifact_bytes": run.artifact.bytes,
        "plan": prepared.plan.mode,
    }


def run_reference(name: str, data: Path, seed: int, out: Path) -> dict[str, Any]:
    """Score the plain model on validation.jsonl, with demonstrations drawn from the training rows."""
    from softprompt.config.load import recipe_from_dict
    from softprompt.data.fewshot import few_shot
    from softprompt.data.sources import read_rows
    from softprompt.training.prepare import prepare

    settings = recipe_from_dict(recipe("lora", data, seed, out) | {"base": {}, "method": {"name": "none"}})
    prepared = prepare(settings)
    validation = read_rows(str(data / "validation.jsonl"), split="validation")
    shown = [example.rendered.row for example in prepared.train]
    rows = few_shot(prepared.encoder, shown, validation, REFERENCES[name], seed=seed)
    return {"contestant": name, "seed": seed, **_accuracy(prepared, rows)}


def _accuracy(prepared: Prepared, rows: list[Example]) -> dict[str, Any]:
    from softprompt._system.memory import peak_memory
    from softprompt.evaluation.evaluator import evaluator_of

    evaluation = evaluator_of(prepared.recipe, prepared.lm, prepared.encoder).run(prepared.method, rows)
    score = evaluation.metrics["accuracy"]
    return {
        "accuracy": score.value,
        "low": score.low,
        "high": score.high,
        "n": evaluation.n,
        "peak_memory_bytes": peak_memory(),
    }


def table(results: list[dict[str, Any]]) -> str:
    """Format a Markdown table with a line for each contestant: the mean over its seeds."""
    lines = [
        "| method | accuracy, mean of seeds | each seed | trained | artifact | train s | peak GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in [*REFERENCES, *CONTESTANTS]:
        runs = sorted((r for r in results if r["contestant"] == name), key=lambda r: r["seed"])
        if not runs:
            continue
        scores = [100 * r["accuracy"] for r in runs]
        spread = f" ± {stdev(scores):.1f}" if len(scores) > 1 else ""
        trained = f"{runs[0]['trained_parameters']:,}" if "trained_parameters" in runs[0] else "–"
        size = f"{runs[0]['artifact_bytes'] / 1e3:,.0f} kB" if runs[0].get("artifact_bytes") else "–"
        seconds = f"{mean(r['train_seconds'] for r in runs):.0f}" if "train_seconds" in runs[0] else "–"
        peak = f"{max(r['peak_memory_bytes'] for r in runs) / 1e9:.1f}"
        each = " ".join(f"{x:.1f}" for x in scores)
        lines.append(
            f"| {name} | {mean(scores):.1f}{spread} | {each} | {trained} | {size} | {seconds} | {peak} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, a process each, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with train.jsonl and validation.jsonl"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--only", nargs="*", default=[*REFERENCES, *CONTESTANTS])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--one", nargs=2, metavar=("CONTESTANT", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, seed = args.one[0], int(args.one[1])
        run = run_reference if name in REFERENCES else run_one
        print(json.dumps(run(name, args.data, seed, args.out)))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "results.jsonl"
    results = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for name in args.only:
        for seed in args.seeds:
            if any(r["contestant"] == name and r["seed"] == seed for r in results):
                continue
            command = [sys.executable, "-m", "benchmarks.quality", "--data", str(args.data)]
            command += ["--out", str(args.out), "--one", name, str(seed)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            with file.open("a") as stream:
                stream.write(json.dumps(results[-1]) + "\n")
            print(results[-1], file=sys.stderr, flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
