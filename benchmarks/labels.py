"""Compare ways to give labels, at equal time and with all rows: label words, a head, and a model of words.

    python -m benchmarks.labels --data DIR [--only SET …] [--budget 10m] [--rows N] [--dev N] [--measured N]
        [--seeds N] [--test] [--out runs/labels] [--json] [--short]

A label is an answer of the model, of which the likeliest is chosen ("words"), or a class of a trained
`task.head` ("head"). For each set and each of the two, soft prompts, prefixes, LoRA and full fine-tuning get
the same seconds for their search of the learning rate and for their final runs (`compare.budget`); TF-IDF
with logistic regression is measured beside them. Scores are means over the seeds, on validation rows that no
search reads; `--test` takes the test rows instead, which should be looked at once. `DIR` holds a folder for
each set, with train.jsonl, validation.jsonl and test.jsonl. A killed command resumes when it is given again.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.comparisons import budgeted, rows
from benchmarks.comparisons.budgeted import BASE_RATES, FULL_RATES, RATES
from benchmarks.training import tiny
from benchmarks.training.machine import where
from softprompt.data.split import limit_rows

#: Sets of 150, 77, 4 and 2 labels, and the template of an input.
SETS = {
    "clinc150": "Query: {{ input }}\nIntent:",
    "banking77": "Query: {{ input }}\nIntent:",
    "ag_news": "News: {{ input }}\nTopic:",
    "customer_reviews": "Review: {{ input }}\nSentiment:",
}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "prompt-tuning/after": {"rates": RATES},
    "prefix-tuning/after": {"rates": RATES},
    "lora": {"rates": BASE_RATES},
    "full": {"rates": FULL_RATES},
}
REFERENCE = "tf-idf"
FORMS = {"words": False, "head": True}  # task.head
METRICS = ("accuracy", "macro_f1")


def parts(name: str, args: argparse.Namespace) -> rows.Parts:
    """Return the set's rows: train, dev, and those that are measured."""
    folder = args.data / name
    whole = {split: rows.read(folder / f"{file}.jsonl") for split, file in rows.FILES.items()}
    held = limit_rows(whole["dev"], len(whole["dev"]), rows.SEED)
    measured = whole["test"] if args.test else held[args.dev :]
    return {
        "train": limit_rows(whole["train"], args.rows or len(whole["train"]), rows.SEED),
        "dev": held[: args.dev],
        "test": limit_rows(measured, args.measured, rows.SEED),
    }


def run(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run both comparisons of a set, and return their lines: one for each method and form."""
    paths = rows.write(parts(name, args), args.out / name / "data")
    scores = []
    for form, head in FORMS.items():
        compared = METHODS if head else {**METHODS, REFERENCE: {}}
        task = {"kind": "classification", "metrics": list(METRICS), "head": head}
        template, output = {"input": SETS[name]}, args.out / f"{name}-{form}"
        recipe = budgeted.recipe(args, paths, compared, output, template=template, task=task)
        done = budgeted.run(recipe, args.out / name / form, args)
        for line in budgeted.lines(name, done, METRICS, METRICS[0]):
            scores.append(line if line["method"] == REFERENCE else {**line, "form": form})
    return scores


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    counts = {"rows": 0, "dev": 150, "measured": 300, "seeds": 3, "batch": 16}
    return budgeted.parser("python -m benchmarks.labels", str(__doc__), list(SETS), **counts)


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every method of every set has a score in both forms."""
    sizes = {"dev": 6, "measured": 6, "seeds": 1, "batch": 2}
    args, measured = budgeted.measured(parser(), arguments, run, sizes, made_up)
    known = {(line["set"], line["method"], line.get("form")) for line in measured}
    wanted = {(name, method, form) for name in args.only for method in METHODS for form in FORMS}
    missing = sorted(wanted - known)
    if args.json:
        print(json.dumps({"where": where(), "lines": measured}))
    else:
        print(f"{where()}\n\n{budgeted.table(measured)}")
    print("".join(f"no score: {', '.join(each)}\n" for each in missing), end="", file=sys.stderr)
    return bool(missing)


def made_up(draw: random.Random) -> list[dict[str, Any]]:
    """Draw rows of the short form."""
    return [
        {"input": " ".join(draw.choices(tiny.WORDS, k=4)), "target": label} for label in ("a", "b", "c") * 5
    ]


if __name__ == "__main__":
    sys.exit(main())
