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

from benchmarks.comparisons import budgeted, rows
from benchmarks.comparisons.budgeted import BASE_RATES, FULL_RATES, RATES
from benchmarks.comparisons.sets import SETS, Set
from benchmarks.training import tiny
from benchmarks.training.machine import where
from softprompt.data.split import limit_rows

#: What each variant changes of a plain prefix.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "layer_scale": {"method.layer_scale": True},
    "average": {"train.average": 0.1},
    "long": {"method.length": 64},
}
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


def recipe(name: str, paths: Mapping[str, Path], args: argparse.Namespace) -> dict[str, Any]:
    """Return the recipe of a set's comparison, as a user would write it."""
    chosen = methods_of(args.variant, args.place)
    if args.short:
        chosen = {key: {**change, "rates": change["rates"][1:2]} for key, change in chosen.items()}
    written, files = WRITTEN[name].recipe, budgeted.files_of(paths)
    budget = {"methods": chosen, "budget": args.budget, "seeds": args.seeds, "text_rows": args.text_rows}
    return {
        "model": args.model,
        "template": written["template"],
        "task": written["task"],
        "data": files["data"],
        "train": {"batch_size": args.batch, "cache": "disk", "threads": args.threads},
        "compare": {**files["compare"], **budget},
        "output": str(args.out / name),
    }


def run(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the comparison of a set, and return its lines: one for each method and split."""
    paths = rows.write(parts(name, args), args.out / name / "data")
    done = budgeted.run(recipe(name, paths, args), args.out / name / "contest", args)
    return list(budgeted.lines(name, done, METRICS, METRICS[0]))


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


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    counts = {"rows": 300, "dev": 50, "measured": 50, "seeds": 3, "batch": 4, "text_rows": 24}
    options = budgeted.parser("python -m benchmarks.gap", str(__doc__), list(WRITTEN), **counts)
    options.add_argument(
        "--variant", nargs="*", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME"
    )
    options.add_argument("--place", nargs="+", choices=("after", "before"), default=["after", "before"])
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
        print(f"{where()}\n\n{budgeted.table(measured)}\n\n{budgeted.table(list(gap(measured)))}")
    print("".join(f"{text}\n" for text in missing), end="", file=sys.stderr)
    return bool(missing)


def shorten(args: argparse.Namespace, folder: Path) -> None:
    """Let the command run on a tiny model and made-up rows in a folder, with one rate and one seed."""
    sizes = {"rows": 12, "dev": 4, "measured": 4, "seeds": 1, "text_rows": 1, "batch": 2}
    budgeted.shorten(args, folder, tiny.make(folder)[0], **sizes)
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
