"""It fits an encoder in several ways, each with the same seconds for its search and for its training."""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import softprompt
from softprompt.artifacts.manifest import BASE
from softprompt.artifacts.manifest import VECTORS as VECTORS_FILE
from softprompt.tuned import Tuned

from .sets import SETS, SPLITS, Row, made_up

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

CHOSEN_BY = "ndcg_at_10"


@dataclass(frozen=True, slots=True)
class Bench:
    """The settings of all runs, which are kept in the folder `out`."""

    data: Path
    out: Path
    model: str
    counts: Sequence[int]  # the most rows of train, dev, test
    seconds: float
    batch: int
    threads: int | None
    seed: int = 0

    def rows(self, name: str) -> dict[str, list[Row]]:
        """Return the rows of a set, drawn by the seed."""
        parts = SETS[name](self.data)
        for split, most in zip(SPLITS, self.counts, strict=True):
            random.Random(f"{name} {split} {self.seed}").shuffle(parts[split])
            parts[split] = parts[split][:most]
        return parts

    def tuned(
        self, way: Way, name: str, rows: Mapping[str, Sequence[Row]], settings: dict[str, Any]
    ) -> Tuned:
        """Train a way on a set for the same seconds as the others, or open the run if it is finished.

        A few steps are timed. Then all rates together take half of the seconds, and the one with the best dev
        score is trained for the seconds.
        """
        output = self.out / f"{name}-{way.name}".replace(" ", "-")
        if (output / "softprompt.json").exists():
            return softprompt.open_prompt(output)

        def train(rate: float, steps: int, place: Path) -> Tuned:
            return self.train(way.method, rows, steps, place, {**settings, **way.at(rate)})

        with tempfile.TemporaryDirectory() as folder:
            few = {**rows, "dev": rows["dev"][:TIMED_DEV]}
            timed = {**settings, **way.at(way.rates[0])}
            pace = _pace(self.train(way.method, few, PILOT, Path(folder) / "pilot", timed, evaluations=1))
            steps = max(1, round(SEARCH * self.seconds / len(way.rates) / pace))
            tried = {
                rate: train(rate, steps, Path(folder) / str(rate)).metrics[CHOSEN_BY] for rate in way.rates
            }
        best = max(tried, key=lambda rate: tried[rate])
        return train(best, max(1, round(self.seconds / pace)), output)

    def train(
        self,
        method: str,
        rows: Mapping[str, Sequence[Row]],
        steps: int,
        output: Path,
        settings: dict[str, Any],
        evaluations: int = 4,
    ) -> Tuned:
        """Train for a number of steps, with some evaluations on the dev rows along the way."""
        given: dict[str, Any] = {"batch_size": self.batch, "seed": self.seed, "threads": self.threads}
        given |= {"steps": steps, "eval_every": max(1, steps // evaluations), **settings}
        return softprompt.tune(self.model, method, rows["train"], dev=rows["dev"], output=output, **given)


def options(
    prog: str, description: str, sets: Sequence[str], counts: Sequence[int], seconds: float
) -> argparse.ArgumentParser:
    """Return the options of a benchmark at equal time; `counts` are the default numbers of rows."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, help="the folder of the data")
    parser.add_argument("--out", type=Path, default=Path("runs") / prog.rsplit(".", 1)[-1])
    parser.add_argument("--sets", nargs="+", choices=list(sets), default=list(sets))
    parser.add_argument("--rows", nargs=3, type=int, default=tuple(counts), metavar=("TRAIN", "DEV", "TEST"))
    parser.add_argument("--seconds", type=float, default=seconds, help="of training, for each way")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--short", action="store_true", help="a tiny model and made-up rows")
    return parser


@contextmanager
def bench_of(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Iterator[Bench]:
    """Yield the settings that were given; those of the short form are in a folder that is removed."""
    if given.short:
        with tempfile.TemporaryDirectory() as folder:
            model, data = made_up(Path(folder))
            yield Bench(data, Path(folder) / "out", str(model), (8, 4, 6), 0.01, 4, given.threads)
        return
    if given.data is None:
        parser.error("--data DIR, or --short")
    yield Bench(given.data, given.out, given.model, given.rows, given.seconds, given.batch, given.threads)


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
