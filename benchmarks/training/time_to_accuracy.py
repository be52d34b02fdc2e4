"""Measure the seconds of training to a given accuracy on SST-2: the best cached method against PEFT.

PEFT's learning rate is searched first, for its prompt and its prefix; the search is not timed. The best of
all is then run in turns with softprompt. Building the cache is timed. Every completed run is a line of
OUT/time_to_accuracy.jsonl, from which a killed command resumes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from . import race_ours, race_peft
from .line import Line
from .options import Options
from .race import Trial

OURS = tuple(race_ours.CONTESTANTS)
GOAL = 5.0


def measure(options: Options) -> Iterator[Line]:
    """Measure the median seconds to `options.target` of each cached method, and of PEFT's best."""
    kept = Kept(options)
    for dtype in options.race_dtypes:
        contestant, rate = searched(options, kept, dtype)
        trials: dict[str, list[Trial]] = {name: [] for name in (*OURS, "peft")}
        for seed in options.seeds:
            for name in OURS:
                trial = kept.or_run(
                    {"run": "ours", "contestant": name, "seed": seed, "dtype": dtype},
                    lambda name=name, seed=seed, dtype=dtype: race_ours.run(options, name, seed, dtype),
                )
                trials[name].append(trial)
            trials["peft"].append(
                _peft(options, kept, "timed", contestant, rate, seed, dtype, options.give_up)
            )
        best = min(OURS, key=lambda name: seconds(trials[name]))
        for name in OURS:
            yield _line(options, trials, name, GOAL if name == best else None)


def searched(options: Options, kept: Kept, dtype: str) -> tuple[str, float]:
    """Find PEFT's method and learning rate that reach the target first, or come closest to it."""
    trials: list[Trial] = []
    for contestant in race_peft.CONTESTANTS:
        for rate in options.rates:
            # a run that is slower than the fastest so far cannot win
            limit = min([options.give_up, *(t.reached for t in trials if t.reached is not None)])
            trials.append(_peft(options, kept, "search", contestant, rate, options.seeds[0], dtype, limit))
    best = min(trials, key=lambda t: (math.inf if t.reached is None else t.reached, -t.best))
    return best.contestant, best.rate


def _peft(
    options: Options, kept: Kept, run: str, contestant: str, rate: float, seed: int, dtype: str, limit: float
) -> Trial:
    settings = {"run": run, "contestant": contestant, "rate": rate, "seed": seed, "dtype": dtype}
    return kept.or_run(settings, lambda: race_peft.run(options, contestant, rate, seed, dtype, limit))


def seconds(trials: list[Trial]) -> float:
    """Return the median; infinity if most trials did not reach the target."""
    return median(math.inf if t.reached is None else t.reached for t in trials)


def _line(options: Options, trials: dict[str, list[Trial]], name: str, goal: float | None) -> Line:
    peft = trials["peft"]
    ours, theirs = seconds(trials[name]), seconds(peft)
    # a side that did not reach the target has spent at least this much
    least = median(t.reached or t.spent for t in peft)
    notes = [f"PEFT: {peft[0].contestant} at {peft[0].rate:g}", f"{len(peft)} seeds"]
    for side, value, runs in (("ours", ours, trials[name]), ("PEFT", theirs, peft)):
        if math.isinf(value):
            notes.append(f"{side} did not reach it (best {max(t.best for t in runs):.3f})")
    if math.isinf(theirs):
        notes.append(f"PEFT > {least:.0f} s")
    numbers = [t.best for runs in trials.values() for t in runs]
    return Line(
        "time-to-accuracy",
        f"{options.target:.0%} on sst2, {peft[0].dtype}, {name}",
        None if math.isinf(ours) else ours,
        least,
        "s",
        None if math.isinf(ours) else least / ours,
        goal,
        note="; ".join(notes),
        wrong="" if all(0 <= n <= 1 for n in numbers) else "an accuracy is no share",
    )


class Kept:
    """Keeps finished runs in a file of JSON lines, by all settings that affect them."""

    def __init__(self, options: Options) -> None:
        self.file = options.out / "time_to_accuracy.jsonl"
        names = "model threads batch target train_rows dev_rows every search_steps give_up".split()
        values = options.to_json()
        self._common = {name: values[name] for name in names} | {"data": str(options.data.resolve())}
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        self._trials = {_key(entry["what"]): Trial(**entry["trial"]) for entry in map(json.loads, lines)}

    def or_run(self, settings: dict[str, Any], run: Callable[[], Trial]) -> Trial:
        """Return the stored trial, or run it and store it."""
        settings = self._common | settings
        key = _key(settings)
        if key not in self._trials:
            trial = run()
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"what": settings, "trial": trial.to_json()}) + "\n")
            self._trials[key] = trial
        return self._trials[key]


def _key(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
