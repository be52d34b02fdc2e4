"""Train a prefix on WebNLG (triples to text) and compute BLEU on seen and unseen categories.

    python -m benchmarks.webnlg --data DIR --out runs/webnlg [--steps N] [--json]

`DIR` holds train.jsonl, validation.jsonl and test.jsonl with `input`, `target`, `references` and `seen`.
Dev perplexity on 300 validation rows chooses the checkpoint; the test rows are read once, at the end.
BLEU uses all references. A killed run resumes when the command is given again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def recipe(data: Path, out: Path, steps: int) -> dict[str, Any]:
    """Return the recipe as a user would write it."""
    return {
        "data": {
            "train": str((data / "train.jsonl").resolve()),
            "dev": str((data / "validation.jsonl").resolve()),
            "dev_limit": 150,
            "limit": 5000,
        },
        "template": {"input": "Facts: {{ input }}\nText:"},
        "task": {
            "kind": "generation",
            "references": "references",
            "max_new_tokens": 80,
            "metrics": ["bleu", "chrf"],
        },
        "method": {"name": "prefix-tuning", "placement": "after", "length": 16},
        "train": {
            "steps": steps,
            "batch_size": 16,
            "lr": 5e-3,
            "cache_budget_mb": 8000,
            "eval_every": max(1, steps // 6),
        },
        "output": str(out),
    }


def main() -> None:
    """Train, then score the test rows by group."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/webnlg"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    from softprompt._system.memory import peak_memory
    from softprompt.config.load import recipe_from_dict
    from softprompt.data.sources import read_rows
    from softprompt.evaluation.evaluator import evaluator_of
    from softprompt.evaluation.records import score
    from softprompt.training.prepare import prepare
    from softprompt.training.tune import Hooks, tune

    settings = recipe_from_dict(recipe(args.data, args.out, args.steps))
    prepared = prepare(settings)
    follow = Hooks(
        on_event=lambda e: print(e.step, e.dev, f"{e.seconds_left:.0f} s left", flush=True) if e.dev else None
    )
    run = tune(prepared, hooks=follow, overwrite=True, text_rows=0)
    rows = read_rows(str(args.data / "test.jsonl"), split="test")
    examples = prepared.encoder.encode_rows(rows)
    records = evaluator_of(settings, prepared.lm, prepared.encoder).run(prepared.method, examples).records
    result: dict[str, Any] = {
        "steps": run.outcome.step,
        "train_seconds": round(run.outcome.seconds),
        "best_step": run.outcome.best_step,
        "trained_parameters": prepared.trained_parameters,
        "peak_memory_bytes": peak_memory(),
    }
    for name, wanted in (("seen", True), ("unseen", False)):
        group = [r for r, row in zip(records, rows, strict=True) if bool(row["seen"]) is wanted]
        scores = score(["bleu", "chrf"], group)
        result[name] = {"n": len(group)} | {
            k: [round(x, 2) for x in (s.value, s.low, s.high)] for k, s in scores.items()
        }
    (args.out / "result.json").write_text(json.dumps(result, indent=2))
    print(json.dumps(result, indent=None if args.json else 2))


if __name__ == "__main__":
    main()
