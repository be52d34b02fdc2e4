"""Measure the gap to LoRA where the model writes: prefixes as they were, and with an option each.

    python -m benchmarks.gap --data DIR [--only SET …] [--variant NAME …] [--place after before]
        [--budget 10m] [--rows N] [--measured N] [--seeds N] [--test] [--out runs/gap] [--json] [--short]

For each set, every method gets the same seconds for its search of the learning rate and its final runs
(`compare.budget`): plain prefixes ("before"), prefixes with each variant ("after"), LoRA and full
fine-tuning. The line of a set names, of both groups, the method with the best dev score of its search, and
its score on the measured rows. These are validation rows that no search reads; `--test` takes the test
rows instead, seen and unseen, which should be looked at once. Scores are means over the seeds. `DIR` holds
a folder for each set, with train.jsonl, validation.jsonl and test.jsonl. A killed command resumes when it
is given again.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.comparisons import rows
from benchmarks.comparisons.sets import SETS, Set
from benchmarks.training import tiny
from benchmarks.training.machine import where
from softprompt.compare.report.schema import Comparison
from softprompt.data.split import limit_rows

#: What each variant changes of a plain prefix.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "layer_scale": {"method.layer_scale": True},
    "average": {"train.average": 0.1},
    "long": {"method.length": 64},
}
RATES, BASE_RATES = [3e-3, 1e-2, 3e-2, 1e-1], [1e-4, 3e-4, 1e-3, 3e-3]
FULL_RATES = [1e-5, 3e-5, 1e-4]
WRITTEN: Mapping[str, Set] = {
    **{name: SETS[name] for name in ("bible_style", "webnlg", "natural_instructions")},
    "e2e": Set(rows.restaurants, SETS["webnlg"].recipe),
}
METRICS = ("perplexity", "bleu", "chrf", "rouge_l")


def parts(name: str, args: argparse.Namespace) -> rows.Parts:
    """Return the set's rows: train, dev, and those that are measured (test, unseen)."""
    whole = WRITTEN[name].parts(args.data)
    train = limit_rows(whole["train"], args.rows, rows.SEED)
    held = whole["dev"]
    if args.test:
        unseen = {"unseen": whole["unseen"][: args.measured]} if "unseen" in whole else {}
        return {"train": train, "dev": held[: args.dev], "test": whole["test"][: args.measured], **unseen}
    return {"train": train, "dev": held[: args.dev], "test": held[args.dev :][: args.measured]}


def methods_of(variants: Sequence[str], places: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what is compared: plain prefixes, each variant at each place, LoRA and full fine-tuning."""
    compared: dict[str, dict[str, Any]] = {}
    for variant in ("", *variants):
        for place in places:
            plain = f"prefix-tuning/{place}"
            changes = dict(VARIANTS[variant]) if variant else {}
            compared[f"{plain}+{variant}" if variant else plain] = {"method": plain, "rates": RATES} | changes
    return compared | {"lora": {"rates": BASE_RATES}, "full": {"rates": FULL_RATES}}


def recipe(name: str, files: Mapping[str, Path], args: argparse.Namespace) -> dict[str, Any]:
    """Return the recipe of a set's comparison, as a user would write it."""
    chosen = methods_of(args.variant, args.place)
    if args.short:
        chosen = {key: {**change, "rates": change["rates"][1:2]} for key, change in chosen.items()}
    written = WRITTEN[name].recipe
    return {
        "model": args.model,
        "template": written["template"],
        "task": written["task"],
        "data": {split: str(files[split].resolve()) for split in ("train", "dev", "test")},
        "train": {"batch_size": args.batch, "cache": "disk", "threads": args.threads},
        "compare": {
            "methods": chosen,
            "budget": args.budget,
            "seeds": args.seeds,
            "text_rows": args.text_rows,
            "control": False,
            "serving": False,
            "unseen": {"file": str(files["unseen"].resolve())} if "unseen" in files else None,
        },
        "output": str(args.out / name),
    }


def run(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the comparison of a set, and return its lines: one for each method and split."""
    import softprompt
    from softprompt.compare.experiment import Hooks

    files = rows.write(parts(name, args), args.out / name / "data")
    hooks = Hooks(on_stage=lambda text: print(f"{name}: {text}", file=sys.stderr, flush=True))
    folder = args.out / name / "contest"
    done = softprompt.compare_methods(
        recipe(name, files, args), folder, workers=args.workers, hooks=hooks, report=not args.short
    )
    return list(lines(name, done))


def lines(name: str, result: Comparison) -> Iterator[dict[str, Any]]:
    """Yield each method's scores on each split, with its steps and its seconds beside those planned."""
    times = {spent.contestant: spent for spent in result.times}
    for score in result.scores:
        if score.seed is not None or score.contestant not in times:
            continue
        spent = times[score.contestant]
        values = {key: score.metrics.get(key, {}).get("value") for key in METRICS}
        yield {
            "set": name,
            "method": score.contestant,
            "split": score.split,
            **{key: value for key, value in values.items() if value is not None},
            "dev": searched(result, score.contestant),
            "steps": spent.steps,
            "seconds": spent.seconds,
            "planned": spent.planned_seconds,
        }


def searched(result: Comparison, method: str) -> float | None:
    """Return the best dev perplexity of a method's search."""
    trials = [t for t in result.trials if t.contestant == method and t.phase == "search"]
    values = [value for t in trials if (value := t.dev.get("perplexity")) is not None]
    return min(values, default=None)


def gap(measured: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a line for each set and split: before, after, LoRA and full, each group's best by dev score."""
    for name, split in dict.fromkeys((line["set"], line["split"]) for line in measured):
        here = [line for line in measured if (line["set"], line["split"]) == (name, split)]
        groups = {
            "before": [line for line in here if line["method"].startswith("prefix-tuning/")
                       and "+" not in line["method"]],
            "after": [line for line in here if line["method"].startswith("prefix-tuning/")],
            **{base: [line for line in here if line["method"] == base] for base in ("lora", "full")},
        }  # fmt: skip
        best = {
            group: min(members, key=lambda line: line["dev"] if line["dev"] is not None else float("inf"))
            for group, members in groups.items()
            if members
        }
        yield {"set": name, "split": split, **{group: _shown(line) for group, line in best.items()}}


def _shown(line: Mapping[str, Any]) -> str:
    value = line.get("perplexity")
    text = "–" if value is None else f"{value:.3g}"
    return f"{text} ({line['method']})" if "/" in line["method"] else text


def table(lines_: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table with a column for each key."""
    keys = list(dict.fromkeys(key for line in lines_ for key in line))
    cells = [[_cell(line.get(key)) for key in keys] for line in lines_]
    every = [keys, ["---"] * len(keys), *cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in every)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks.gap",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--data", type=Path, help="folder of the sets")
    options.add_argument("--out", type=Path, default=Path("runs/gap"))
    options.add_argument("--only", nargs="+", choices=list(WRITTEN), default=list(WRITTEN), metavar="SET")
    options.add_argument(
        "--variant", nargs="*", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME"
    )
    options.add_argument("--place", nargs="+", choices=("after", "before"), default=["after", "before"])
    options.add_argument("--model", default="smollm2", help="alias or folder of the base model")
    options.add_argument("--budget", default="10m", help="training time of each method, such as 10m")
    for option, value in (("rows", 300), ("dev", 50), ("measured", 50), ("seeds", 3), ("batch", 4),
                          ("text-rows", 24)):  # fmt: skip
        options.add_argument(f"--{option}", type=int, default=value, metavar="N", help=f"({value})")
    options.add_argument("--test", action="store_true", help="measure on the test rows: look at them once")
    options.add_argument("--workers", type=int)
    options.add_argument("--threads", type=int, help="of each worker; by default cores / workers")
    options.add_argument("--json", action="store_true", help="one JSON object")
    options.add_argument("--short", action="store_true", help="everything once, on a tiny model")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every method of every set has a score."""
    options = parser()
    args = options.parse_args(arguments)
    if args.data is None and not args.short:
        options.error("--data is missing. fix: name the folder of the sets, or --short")
    with tempfile.TemporaryDirectory() as folder:
        if args.short:
            shorten(args, Path(folder))
        measured = [line for name in args.only for line in run(name, args)]
        missing = [
            f"{name}: {method} has no score"
            for name in args.only
            for method in methods_of(args.variant, args.place)
            if not any((line["set"], line["method"]) == (name, method) for line in measured)
        ]
    if args.json:
        print(json.dumps({"where": where(), "lines": measured, "gap": list(gap(measured))}))
    else:
        print(f"{where()}\n\n{table(measured)}\n\n{table(list(gap(measured)))}")
    print("".join(f"{text}\n" for text in missing), end="", file=sys.stderr)
    return bool(missing)


def shorten(args: argparse.Namespace, folder: Path) -> None:
    """Let the command run on a tiny model and made-up rows in a folder, with one rate and one seed."""
    args.model, args.data, args.out = str(tiny.make(folder)[0]), folder / "sets", folder / "out"
    args.rows, args.dev, args.measured, args.seeds, args.text_rows, args.batch = 12, 4, 4, 1, 1, 2
    args.budget, args.threads, args.workers, args.only = "2s", 1, 1, args.only[:1]
    for split in rows.FILES.values():
        draw = random.Random(split)
        texts = [" ".join(draw.choices(tiny.WORDS, k=4)) for _ in range(12)]
        place = args.data / args.only[0] / f"{split}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        lines = [{"input": text, "target": text, "references": [text], "seen": i % 2 == 0}
                for i, text in enumerate(texts)]  # fmt: skip
        place.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
