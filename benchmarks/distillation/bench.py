"""Bench has the settings of a measurement, its results on disk, and its one way to distil."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import softprompt
from softprompt._system.files import write_text
from softprompt.distillation.run import Distilled
from softprompt.errors import SoftPromptError
from softprompt.lm.base import LanguageModel

from ..training.machine import where

Result = dict[str, Any]


@dataclass
class Bench:
    """The settings of a measurement, and the folder `out` of its runs and results."""

    out: Path
    model: str = "smollm2"
    short: bool = False
    settings: dict[str, Any] = field(default_factory=dict)  # of every run, over those of a measure
    only: Sequence[str] | None = None  # the names of the prompts to measure; None for all
    lengths: Sequence[int] = (64, 16, 4)  # numbers of vectors of the system prompts
    _lm: LanguageModel | None = None

    @property
    def lm(self) -> LanguageModel:
        """The base model, loaded at the first use."""
        if self._lm is None:
            self._lm = softprompt.load(self.model)
        return self._lm

    def once(self, name: str, compute: Callable[[], Result]) -> Result:
        """Return a result that is on disk, or compute and write it with machine, threads, date, seconds.

        A text that cannot be distilled is a result too: its `error` says why, and the next call tries again.
        """
        file = self.out / "results" / f"{name}.json"
        if file.exists() and "error" not in (kept := json.loads(file.read_text(encoding="utf-8"))):
            return kept
        started = time.perf_counter()
        try:
            result = compute()
        except SoftPromptError as error:
            result = {"error": str(error)}
        facts = {"name": name, "where": where(), "threads": torch.get_num_threads()}
        result = facts | {"seconds": round(time.perf_counter() - started, 1), **result}
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"{name}: {result.get('error') or 'measured'}, {result['seconds']} s", flush=True)
        return result

    def distil(self, name: str, text: Any, requests: Sequence[Any] | None, **settings: Any) -> Distilled:
        """Turn a text into vectors; an interrupted run resumes, and a finished one is only measured again."""
        options: dict[str, Any] = {"output": self.out / "runs" / name, **settings, **self.settings}
        return softprompt.distill(self.lm, text, requests, progress=False, **options)


def distilled(result: Distilled) -> Result:
    """Return the figures of a distillation that the tables use."""
    ways = result.comparison.ways
    return {
        "share": list(result.share),
        "kl": {name: way["metrics"]["kl"] for name, way in ways.items()},
        "text_tokens": result.comparison.text_tokens,
        "vectors": result.comparison.soft_tokens,
        "n": ways["vectors"]["n"],
    }


def whole(results: Iterable[Result]) -> list[Result]:
    """Return the results that are no errors."""
    return [item for item in results if "error" not in item]


def median_and_worst(values: Sequence[float]) -> str:
    """Format shares as percentages."""
    if not values:
        return "none | none"
    return f"{100 * statistics.median(values):.0f} % | {100 * min(values):.0f} %"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Format a Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def errors(results: Iterable[Result]) -> str:
    """List the results that are errors, a line each."""
    return "\n".join(f"not measured: {item['name']}: {item['error']}" for item in results if "error" in item)
