"""Bench has the settings of a measurement, its results on disk, and its one way to distil."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import softprompt
from softprompt._system.files import write_text
from softprompt.distillation.run import Distilled
from softprompt.distillation.work import REQUESTS, SELF_STUDY
from softprompt.errors import SoftPromptError
from softprompt.lm.base import LanguageModel

from ..training.machine import where

Result = dict[str, Any]
Row = dict[str, Any]


@dataclass
class Bench:
    """The settings of a measurement, and the folder `out` of its runs and results."""

    out: Path
    model: str = "smollm2"
    short: bool = False
    settings: dict[str, Any] = field(default_factory=dict)  # of every run, over those of a measure
    only: Sequence[str] | None = None  # the names (of texts, sets, tasks) to measure; None for all
    lengths: Sequence[int] | None = None  # numbers of vectors; None for those of a measure
    data: Path | None = None  # the folder of data sets
    count: int | None = None  # of texts, sets or tasks; None for as many as a measure has by default
    url: str | None = None  # of a server to measure beside our own
    _lm: LanguageModel | None = None

    @property
    def lm(self) -> LanguageModel:
        """The base model, loaded at the first use."""
        if self._lm is None:
            self._lm = softprompt.load(self.model)
        return self._lm

    def chosen(self, names: Iterable[str], count: int | None = None) -> list[str]:
        """Return those of the names that are to be measured: of `only`, else the first `count`."""
        if self.only is not None:
            return [name for name in names if name in self.only]
        return list(names)[: 1 if self.short else self.count or count]

    def without(self, *settings: str) -> Bench:
        """Return the same measurement without some settings of its runs."""
        left = {key: value for key, value in self.settings.items() if key not in settings}
        return replace(self, settings=left, _lm=self.lm)

    def rows(self, *parts: str) -> list[Row]:
        """Read a file of the data sets, rows as JSON Lines. Raises SoftPromptError where it is missing."""
        file = (self.data or Path()).joinpath(*parts)
        if self.data is None or not file.is_file():
            raise SoftPromptError(
                f"there is no file {file}", fix="--data FOLDER, the folder of the data sets"
            )
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]

    def once(self, name: str, compute: Callable[[], Result]) -> Result:
        """Return a result that is on disk, or compute and write it with machine, threads, date, seconds.

        A text that cannot be distilled is a result too: its `error` says why, and the next call tries again.
        Raises SoftPromptError for a result that was measured with other settings.
        """
        file = self.out / "results" / f"{name}.json"
        given = {"model": self.model, "settings": self.settings}
        if file.exists() and "error" not in (kept := json.loads(file.read_text(encoding="utf-8"))):
            before = {key: kept.get(key, value) for key, value in given.items()}
            if before != given:
                raise SoftPromptError(
                    f"{file} was measured with other settings",
                    why=f"then {json.dumps(before)}, now {json.dumps(given)}",
                    fix="give the same settings, or another folder with --out",
                )
            return kept
        started = time.perf_counter()
        try:
            result = compute()
        except SoftPromptError as error:
            result = {"error": str(error)}
        facts = {"name": name, "where": where(), "threads": torch.get_num_threads(), **given}
        result = facts | {"seconds": round(time.perf_counter() - started, 1), **result}
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        print(f"{name}: {result.get('error') or 'measured'}, {result['seconds']} s", flush=True)
        return result

    def distil(
        self,
        name: str,
        text: Any,
        requests: Sequence[Any] | None,
        like: str | None = None,
        **settings: Any,
    ) -> Any:
        """Turn a text into vectors; an interrupted run resumes, and a finished one is only measured again.

        The requests and answers of `like`, a run of the same text, are used again.
        """
        folder = self.out / "runs"
        if like is not None and like != name:
            before = folder / f"{like}-distill"
            for file in sorted(before.rglob("*.json*")):
                place = folder / f"{name}-distill" / file.relative_to(before)
                if file.name.startswith((Path(REQUESTS).stem, Path(SELF_STUDY).stem)) and not place.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, place)
        options: dict[str, Any] = {"output": folder / name, **settings, **self.settings}
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


def percent(share: Sequence[float]) -> str:
    """Format a share and its 95 % interval as percentages."""
    return "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * value for value in share))


def median_and_worst(values: Sequence[float]) -> str:
    """Format shares as percentages."""
    if not values:
        return "– | –"
    return f"{100 * statistics.median(values):.0f} % | {100 * min(values):.0f} %"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Format a Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def errors(results: Iterable[Result]) -> str:
    """List the results that are errors, a line each."""
    return "\n".join(f"not measured: {item['name']}: {item['error']}" for item in results if "error" in item)
