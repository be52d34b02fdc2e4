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
from collections.abc import Iterator, Mapping, Sequence
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


def run(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the comparison of a set, and return its lines: one for each method and split."""
    paths = rows.write(parts(name, args), args.out / name / "data")
    written = {key: WRITTEN[name].recipe[key] for key in ("template", "task")}
    compared, more = methods_of(args.variant, args.place), {"text_rows": args.text_rows}
    recipe = budgeted.recipe(args, paths, compared, args.out / name, **written, compare=more)
    done = budgeted.run(recipe, args.out / name / "contest", args)
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
    sizes = {"rows": 12, "dev": 4, "measured": 4, "seeds": 1, "text_rows": 1, "batch": 2}
    args, measured = budgeted.measured(parser(), arguments, run, sizes, made_up)
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


def made_up(draw: random.Random) -> list[dict[str, Any]]:
    """Draw rows of the short form."""
    texts = [" ".join(draw.choices(tiny.WORDS, k=4)) for _ in range(12)]
    return [
        {"input": text, "target": text, "references": [text], "seen": i % 2 == 0}
        for i, text in enumerate(texts)
    ]


if __name__ == "__main__":
    sys.exit(main())
