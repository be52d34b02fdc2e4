"""A thousand customers, each with 16 to 64 rows and a prompt of its own, trained in one run and served.

    python -m benchmarks.customers --data DIR --out runs/customers

Stages: cut (the rows), train (all in one run), alone (some again, each in a run of its own), list (by a
server), serve (mixed requests against the same ones one by one), add (one more customer, by a command) and
shared (what a shared part gains for customers with few rows). Each writes OUT/STAGE.json with the machine,
the date and the seconds; a stage that is finished is not run again, and a stopped one is resumed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks.many_customers import stages
from benchmarks.many_customers.setup import Setup, short
from benchmarks.many_customers.shared import shared
from benchmarks.training import tiny

STAGES: Mapping[str, Callable[[Setup], Mapping[str, Any]]] = {
    "cut": stages.cut_rows,
    "train": stages.train,
    "alone": stages.alone,
    "list": stages.listed,
    "serve": stages.serve,
    "add": stages.add,
    "shared": shared,
}
SIZES = ("count", "drawn", "requests", "few", "few_rows", "steps", "batch", "lr", "seed")


def faults(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """List what is wrong in the results, however fast or slow it was."""
    wrong = {
        "train": lambda r: r["not_finished"] and f"{r['not_finished']} prompts did not finish",
        "list": lambda r: r["missing"] and f"{r['missing']} prompts are not listed",
        "serve": lambda r: r["wrong"] and f"{r['wrong']} answers are not those of the request alone",
        "add": lambda r: (
            (r["others_changed"] and "other prompts changed")
            or (not r["served"] and "the added prompt is not served")
        ),
    }
    problems = {stage: wrong[stage](result) for stage, result in results.items() if stage in wrong}
    return [f"{stage}: {text}" for stage, text in problems.items() if text]


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if nothing is wrong, however slow it was."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.customers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder of sets, each with train.jsonl and test.jsonl")
    parser.add_argument("--out", type=Path, default=Path("runs/customers"))
    parser.add_argument("--model", default="smollm2", help="alias or folder of the base model")
    parser.add_argument("--only", nargs="+", choices=list(STAGES), default=list(STAGES), metavar="STAGE")
    for each in fields(Setup):
        if each.name in SIZES:
            name, kind = f"--{each.name.replace('_', '-')}", type(each.default)
            parser.add_argument(name, type=kind, default=each.default, metavar="N", help=f"({each.default})")
    parser.add_argument("--short", action="store_true", help="everything once, on a tiny model")
    args = parser.parse_args(arguments)
    if args.data is None and not args.short:
        parser.error("--data is missing. fix: name the folder of the sets, or --short")
    with tempfile.TemporaryDirectory() as folder:
        sizes = {name: getattr(args, name) for name in SIZES}
        setup = Setup(args.data or Path(folder), args.out, args.model, **sizes)
        if args.short:
            setup = short(Setup(Path(folder), Path(folder) / "out"), *made_up(Path(folder)))
        results = {}
        for stage in args.only:
            results[stage] = setup.kept(stage, lambda stage=stage: STAGES[stage](setup))
            print(json.dumps(results[stage]), flush=True)
    wrong = faults(results)
    if wrong:
        print("not as it should be:\n" + "\n".join(wrong), file=sys.stderr)
    return bool(wrong)


def made_up(folder: Path) -> tuple[Path, Path]:
    """Write made-up rows and a tiny model; return both folders."""
    model, data = tiny.make(folder)[0], folder / "sets"
    tiny.write_rows(data, count=80, longest=4)
    for file in sorted(data.rglob("validation.jsonl")):
        file.rename(file.with_name("test.jsonl"))
    return data, model


if __name__ == "__main__":
    sys.exit(main())
