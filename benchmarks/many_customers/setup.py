"""The folders, the recipe, the base model and the results are the same for all stages, and are made here."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import softprompt
from benchmarks.training.machine import where
from softprompt.cli import main
from softprompt.lm.base import LanguageModel

from .cut import Row

#: Placed after the input, so that inputs are computed once: a step runs the last input token and the label.
METHOD: dict[str, Any] = {"name": "prefix-tuning", "placement": "after", "length": 4}


@dataclass(frozen=True)
class Setup:
    """Holds the folders and the sizes."""

    data: Path
    out: Path
    model: str = "smollm2"
    count: int = 1000  # customers
    drawn: int = 20  # of them, trained alone
    requests: int = 1000  # of the served mixture
    few: int = 40  # customers of 16 rows, in `shared`
    few_rows: int = 16
    steps: int = 30
    batch: int = 8
    lr: float = 0.03
    seed: int = 0

    @property
    def rows(self) -> Path:
        return self.out / "rows"

    @property
    def prompts(self) -> Path:
        """The folder with a prompt for each customer, which the server serves."""
        return self.out / "prompts"

    def recipe(self, rows: Path, output: Path, **changes: Any) -> Path:
        """Write a recipe for rows in a folder beside the output, and return its path."""
        train = {"steps": self.steps, "batch_size": self.batch, "eval_every": max(1, self.steps // 3)}
        whole: dict[str, Any] = {
            "model": self.model,
            "data": {
                "train": str((rows / "train.jsonl").resolve()),
                "dev": str((rows / "dev.jsonl").resolve()),
                "prompt_field": "customer",
            },
            "template": {"input": "{{ input }}\nLabel:", "target": "{{ target }}"},
            "task": {"kind": "choice", "choices": "choices"},
            "method": METHOD,
            "train": {**train, "lr": self.lr, "seed": self.seed, "apart": True},
            "output": str(output.resolve()),
        }
        for key, value in changes.items():
            whole[key] = {**whole[key], **value} if key == "train" else value
        file = self.out / f"{output.name}.yaml"
        self.out.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
        return file

    def lm(self, dtype: str = "auto") -> LanguageModel:
        return _loaded(self.model, dtype)

    def held(self, rows: Path) -> dict[str, list[Row]]:
        """Return the test rows of each customer."""
        held: dict[str, list[Row]] = {}
        for line in (rows / "test.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            held.setdefault(row["customer"], []).append(row)
        return held

    def kept(self, stage: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Run a stage and write its result with machine, date and seconds, or read it for the same sizes."""
        file = self.out / f"{stage}.json"
        settings = {name: str(value) for name, value in asdict(self).items()}
        if file.exists():
            before = json.loads(file.read_text(encoding="utf-8"))
            if before["settings"] == settings:
                return before
        started = time.perf_counter()
        result = dict(work())
        seconds = time.perf_counter() - started
        whole = {
            "stage": stage,
            "where": where(),
            "seconds": round(seconds, 1),
            "settings": settings,
            **result,
        }
        self.out.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        unfinished.write_text(json.dumps(whole, indent=1), encoding="utf-8")
        os.replace(unfinished, file)
        return whole


@functools.cache
def _loaded(model: str, dtype: str) -> LanguageModel:
    return softprompt.load(model, dtype=dtype)  # type: ignore[arg-type]


def command(*arguments: object) -> dict[str, Any]:
    """Run a command of softprompt in this process, and return its JSON. Raises RuntimeError if it fails."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main([*map(str, arguments), "--json"])
    if code:
        raise RuntimeError(f"softprompt {' '.join(map(str, arguments))}: {out.getvalue()}")
    return json.loads(out.getvalue())


def right(setup: Setup, folder: Path, rows: Sequence[Row], prompt: str | None = None) -> list[bool]:
    """Return for each row whether a prompt's likeliest choice is the target."""
    tuned = softprompt.open_prompt(folder, setup.lm())
    records = tuned.evaluate(rows, prompt=prompt).records
    return [record.prediction == row["target"] for record, row in zip(records, rows, strict=True)]


def interval(differences: Sequence[float], draws: int = 10_000) -> dict[str, float]:
    """Return the mean, and its 95 % interval over what is drawn: rows of a customer, or customers."""
    values = np.array(differences, dtype=float)
    drawn = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
    low, high = np.percentile(values[drawn].mean(1), [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def short(setup: Setup, data: Path, model: Path) -> Setup:
    """Return the smallest sizes that run every stage, on a tiny model."""
    return replace(
        setup, data=data, model=str(model), count=4, drawn=1, requests=6, few=2, few_rows=16, steps=2, batch=4
    )
