"""It measures how soon a matched start, trained for a tenth of the steps, reaches what plain starts reach.

Each run's divergence on the dev requests is kept by step and by seconds. The seconds are those of making the
start and of training, spread evenly over its steps: so a run that was interrupted has them too. Plain starts
are the keys and values of the text's first tokens (`context`), and random ones.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from softprompt.distillation.run import Distilled

from .bench import Bench, Result, distilled, errors, percent, table, whole
from .requests import requests_for
from .system import names as names_of_prompts
from .system import words
from .untrained import start_of

TEXTS = ("support", "innkeeper", "island")
STEPS = 2000  # of a plain start; `--set steps=N` gives another number
STARTS = {"matched": 0.1, "context": 1.0, "random": 1.0}  # share of the steps
EVALUATIONS = 40  # of each run
VECTORS = 64


def names(bench: Bench) -> list[str]:
    """Return the names of the prompts."""
    return names_of_prompts(bench)


def measure(bench: Bench) -> list[Result]:
    """Train each start on some prompts."""
    return [
        bench.once(f"start-{text}-{init}", partial(_trained, bench, text, init))
        for text in bench.chosen(names(bench) if bench.only else TEXTS)
        for init in STARTS
    ]


def report(results: Sequence[Result]) -> str:
    """Format what each start reaches, and when the matched one reaches what a plain one does."""
    known = {(r["prompt"], r["init"]): r for r in whole(results)}
    rows = [
        (
            r["prompt"],
            r["init"],
            r["steps"],
            f"{r['making_seconds']:.0f}",
            f"{r['seconds_in_all']:.0f}",
            f"{best(r):.4f}",
            percent(r["share"]),
        )
        for r in known.values()
    ]
    races = []
    for (prompt, init), plain in known.items():
        matched = known.get((prompt, "matched"))
        if init == "matched" or matched is None:
            continue
        there = reached(matched, best(plain))
        took = f"{there['step']} steps, {there['seconds']:.0f} s" if there else f"no: {best(matched):.4f}"
        ratio = f"{there['seconds'] / best_point(plain)['seconds']:.3f}" if there else "–"
        back = reached(plain, best(matched))
        behind = f"{back['step']} steps, {back['seconds']:.0f} s" if back else "no"
        races.append((prompt, init, f"{best(plain):.4f}", took, ratio, behind))
    header = ("prompt", "start", "steps", "making it, s", "in all, s", "best dev divergence", "share")
    race = (
        "prompt",
        "plain start",
        "its best",
        "matched reaches it",
        "of its seconds",
        "it reaches matched's best",
    )
    return "\n\n".join(filter(None, [table(header, rows), table(race, races), errors(results)]))


def best_point(result: Result) -> dict[str, float]:
    """Return the first point of a curve with its lowest divergence."""
    return min(result["curve"], key=lambda point: point["kl"])


def best(result: Result) -> float:
    return best_point(result)["kl"]


def reached(result: Result, goal: float) -> dict[str, float] | None:
    """Return the first point of a curve at or below a divergence; None where there is none."""
    return next((point for point in result["curve"] if point["kl"] <= goal), None)


def _trained(bench: Bench, text: str, init: str) -> Result:
    steps = max(1, round(STARTS[init] * bench.settings.get("steps", STEPS)))
    content = words(text, bench.short)
    options: dict[str, Any] = {"vectors": 4 if bench.short else VECTORS, "seeds": 1, "init": init}
    options |= {"eval_every": max(1, steps // EVALUATIONS)}
    single = bench.without("seeds", "steps")
    like = f"start-{text}-{next(iter(STARTS))}"
    requests = requests_for(text, bench.short)
    result = single.distil(f"start-{text}-{init}", content, requests, like, steps=steps, **options)
    making = _seconds_to_make(result)
    outcome = result.run.outcome
    curve = [
        {
            "step": point["step"],
            "seconds": making + outcome.seconds * point["step"] / outcome.step,
            "kl": point["kl"],
        }
        for point in outcome.history
    ]
    return {
        "prompt": text,
        "init": init,
        "steps": outcome.step,
        "making_seconds": making,
        "seconds_in_all": making + outcome.seconds,
        "curve": curve,
        **distilled(result),
    }


def _seconds_to_make(result: Distilled) -> float:
    """Return the seconds to encode the rows and to make the start, with what is cached already."""
    started = time.perf_counter()
    start_of(result)
    return time.perf_counter() - started
