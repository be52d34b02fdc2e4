"""A comparison at equal time is run for a set, and its scores become the lines of a table."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.comparisons import rows
from benchmarks.training import tiny
from softprompt.compare.report.schema import Comparison

RATES, BASE_RATES = [3e-3, 1e-2, 3e-2, 1e-1], [1e-4, 3e-4, 1e-3, 3e-3]
FULL_RATES = [1e-5, 3e-5, 1e-4]


def recipe(
    args: argparse.Namespace,
    paths: Mapping[str, Path],
    methods: Mapping[str, Mapping[str, Any]],
    output: Path,
    **sections: Any,
) -> dict[str, Any]:
    """Return the recipe of a comparison, as a user would write it; the short form tries one rate of each."""
    unseen = {"file": str(paths["unseen"].resolve())} if "unseen" in paths else None
    if args.short:
        methods = {
            name: {**given, "rates": given["rates"][1:2]} if "rates" in given else given
            for name, given in methods.items()
        }
    compare = {"methods": methods, "budget": args.budget, "seeds": args.seeds, "unseen": unseen}
    return {
        "model": args.model,
        "data": {split: str(paths[split].resolve()) for split in ("train", "dev", "test")},
        "train": {"batch_size": args.batch, "cache": "disk", "threads": args.threads},
        "output": str(output),
        **sections,
        "compare": {"control": False, "serving": False, **compare, **sections.get("compare", {})},
    }


def run(recipe: dict[str, Any], folder: Path, args: argparse.Namespace) -> Comparison:
    """Run a comparison, and say on standard error what it does."""
    import softprompt
    from softprompt.compare.experiment import Hooks

    hooks = Hooks(on_stage=lambda text: print(f"{folder}: {text}", file=sys.stderr, flush=True))
    return softprompt.compare_methods(
        recipe, folder, workers=args.workers, hooks=hooks, report=not args.short
    )


def lines(name: str, result: Comparison, metrics: Sequence[str], chosen_by: str) -> Iterator[dict[str, Any]]:
    """Yield each method's scores on each split, with its steps and its seconds beside those planned."""
    times = {spent.contestant: spent for spent in result.times}
    for score in result.scores:
        if score.seed is not None:
            continue
        spent = times.get(score.contestant)  # none of a reference
        took: dict[str, Any] = {}
        if spent is not None:
            took = {"steps": spent.steps, "seconds": spent.seconds, "planned": spent.planned_seconds}
        values = {key: score.metrics.get(key, {}).get("value") for key in metrics}
        yield {
            "set": name,
            "method": score.contestant,
            "split": score.split,
            **{key: value for key, value in values.items() if value is not None},
            "dev": searched(result, score.contestant, chosen_by),
            **took,
        }


def searched(result: Comparison, method: str, metric: str) -> float | None:
    """Return the best dev score of a method's search: the lowest perplexity, or the highest of another."""
    trials = [t for t in result.trials if t.contestant == method and t.phase == "search"]
    values = [value for t in trials if (value := t.dev.get(metric)) is not None]
    return (min if metric == "perplexity" else max)(values, default=None)


def table(scores: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table with a column for each key."""
    keys = list(dict.fromkeys(key for row in scores for key in row))
    cells = [[_cell(row.get(key)) for key in keys] for row in scores]
    every = [keys, ["---"] * len(keys), *cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in every)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def parser(prog: str, description: str, sets: Sequence[str], **counts: int) -> argparse.ArgumentParser:
    """Return the options that benchmarks of comparisons at equal time share; `counts` are defaults."""
    options = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, help="folder of the sets")
    options.add_argument("--out", type=Path, default=Path("runs") / prog.rsplit(".", 1)[-1])
    options.add_argument("--only", nargs="+", choices=list(sets), default=list(sets), metavar="SET")
    options.add_argument("--model", default="smollm2", help="alias or folder of the base model")
    options.add_argument("--budget", default="10m", help="training time of each method, such as 10m")
    for option, value in counts.items():
        name = option.replace("_", "-")
        options.add_argument(f"--{name}", type=int, default=value, metavar="N", help=f"({value})")
    options.add_argument("--test", action="store_true", help="measure on the test rows: look at them once")
    options.add_argument("--workers", type=int)
    options.add_argument("--threads", type=int, help="of each worker; by default cores / workers")
    options.add_argument("--json", action="store_true", help="one JSON object")
    options.add_argument("--short", action="store_true", help="everything once, on a tiny model")
    return options


def measured(
    options: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    measure: Callable[[str, argparse.Namespace], Sequence[dict[str, Any]]],
    sizes: Mapping[str, int],
    made_up: Callable[[random.Random], list[dict[str, Any]]],
) -> tuple[argparse.Namespace, list[dict[str, Any]]]:
    """Return the arguments and the lines of all sets.

    The short form measures one set of rows that `made_up` draws, of such `sizes`, on a tiny model.
    """
    args = options.parse_args(arguments)
    if args.data is None and not args.short:
        options.error("--data is missing. fix: name the folder of the sets, or --short")
    with tempfile.TemporaryDirectory() as folder:
        if args.short:
            args.model, args.data = str(tiny.make(Path(folder))[0]), Path(folder) / "sets"
            args.out, args.budget, args.threads, args.workers = Path(folder) / "out", "2s", 1, 1
            args.only = args.only[:1]
            vars(args).update(sizes)
            rows.write(
                {split: made_up(random.Random(split)) for split in rows.FILES.values()},
                args.data / args.only[0],
            )
        return args, [line for name in args.only for line in measure(name, args)]
