"""It fits an encoder in several ways, each with the same seconds for its search and for its training."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import softprompt
from softprompt.artifacts.manifest import BASE
from softprompt.artifacts.manifest import VECTORS as VECTORS_FILE
from softprompt.tuned import Tuned

PILOT, TIMED_DEV = 16, 10  # steps that are timed; dev rows of these, which are scored once
SEARCH = 0.5  # of the seconds of training: what the search of the learning rate takes, all rates together


@dataclass(frozen=True, slots=True)
class Way:
    """A way to fit the encoder to a set: a method of the registry, or training of the base itself."""

    name: str
    method: str
    rates: tuple[float, ...]
    settings: dict[str, Any]

    def at(self, rate: float) -> dict[str, Any]:
        """Return the settings with a learning rate of what is trained: the vectors, or the base."""
        base = self.settings.get("base")
        return {**self.settings, "lr": rate} if base is None else {"base": {"mode": base, "lr": rate}}


VECTORS, LORA, FULL = (1e-2, 3e-2, 1e-1, 3e-1), (5e-4, 2e-3, 5e-3), (3e-5, 1e-4, 3e-4)
WAYS = (
    Way("prompt of 5", "prompt-tuning", VECTORS, {"length": 5}),
    Way("prompt of 16", "prompt-tuning", VECTORS, {"length": 16}),
    Way("prefix of 16", "prefix-tuning", VECTORS, {"length": 16}),
    Way("LoRA", "none", LORA, {"base": "lora"}),
    Way("full", "none", FULL, {"base": "full"}),
)

#: Trains with settings and steps, and writes to a folder; a pilot is timed, and its scores are not used.
Train = Callable[[dict[str, Any], int, Path, bool], Tuned]


def tuned(way: Way, train: Train, seconds: float, output: Path, chosen_by: str) -> Tuned:
    """Train a way for the same seconds as the others, or open the run if it is finished.

    A few steps are timed. Then all rates together take half of the seconds, and the one with the best dev
    score `chosen_by` is trained for the seconds.
    """
    if (output / "softprompt.json").exists():
        return softprompt.open_prompt(output)
    with tempfile.TemporaryDirectory() as folder:
        pace = _pace(train(way.at(way.rates[0]), PILOT, Path(folder) / "pilot", True))
        steps = max(1, round(SEARCH * seconds / len(way.rates) / pace))
        tried = {
            rate: train(way.at(rate), steps, Path(folder) / str(rate), False).metrics[chosen_by]
            for rate in way.rates
        }
    best = max(tried, key=lambda rate: tried[rate])
    return train(way.at(best), max(1, round(seconds / pace)), output, False)


def train_for(
    steps: int,
    model: str,
    method: str,
    rows: Mapping[str, Sequence[Any]],
    output: Path,
    is_pilot: bool,
    settings: Mapping[str, Any],
) -> Tuned:
    """Train for a number of steps, and score the dev rows four times; a pilot scores a few of them once."""
    dev = rows["dev"][:TIMED_DEV] if is_pilot else rows["dev"]
    every = {"steps": steps, "eval_every": steps if is_pilot else max(1, steps // 4)}
    return softprompt.tune(model, method, rows["train"], dev=dev, output=output, **every, **settings)


def served_bytes(run: Tuned) -> int:
    """Return the bytes of the files that a server loads beside the base model."""
    files = {VECTORS_FILE, BASE} & set(run.artifact.manifest["files"])
    return sum((run.artifact.path / file).stat().st_size for file in files)


def rate_of(run: Tuned) -> float:
    """Return the learning rate of a run: of the base where it was trained, else of the vectors."""
    recipe = run.artifact.manifest["recipe"]
    trained = recipe["train"] if recipe["base"]["mode"] == "frozen" else recipe["base"]
    return trained["lr"]


def _pace(run: Tuned) -> float:
    """Return the seconds of a step."""
    training = run.artifact.manifest["training"]
    return max(1e-3, training["seconds"] / training["steps"])
