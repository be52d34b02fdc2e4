"""The study says what is compared, on which rows, with which model.

It is written to `study.json`, and is the first line of `results.jsonl`.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .._system.files import write_text
from .._system.provenance import provenance
from ..config.schema import Recipe
from ..evaluation.metrics import METRICS
from .candidates import Candidate
from .records.pace import Timed
from .records.store import Folder
from .report.schema import VERSION
from .search import trials_of
from .splits import Splits

Line = dict[str, Any]


@dataclass(frozen=True)
class Before:
    """The facts that a later call takes from the `study.json` of an earlier one."""

    dtype: str | None = None
    started: str | None = None
    seconds: float | None = None

    @staticmethod
    def read(folder: Folder) -> Before:
        """Read them; a missing or damaged file has none."""
        try:
            return _BEFORE.validate_json((folder.path / "study.json").read_bytes(), strict=True)
        except (OSError, ValidationError):
            return Before()


_BEFORE = TypeAdapter(Before)


@dataclass
class Study:
    """A comparison that has begun: its recipe, candidates, rows and folder."""

    recipe: Recipe
    candidates: list[Candidate]
    splits: Splits
    folder: Folder
    source: str = ""  # the recipe's file, for commands to name
    timed: Timed | None = None  # the plan, where all methods have the same time
    about: Line = field(default_factory=dict)
    _since: float = 0.0  # its time is counted until then

    @staticmethod
    def begin(
        recipe: Recipe,
        candidates: Sequence[Candidate],
        splits: Splits,
        folder: Folder,
        source: str,
        since: float,
        timed: Timed | None = None,
    ) -> Study:
        """Write `study.json` before anything is run. Its time counts from `since` (`time.monotonic`)."""
        about, before = _about(recipe, candidates, splits, source), Before.read(folder)
        about["started"] = before.started or about.pop("created")
        about["seconds"] = before.seconds or 0.0
        if timed is not None:
            steps = {name: share.steps for name, share in timed.shares.items()}
            about["budget"] |= {"seconds": timed.budget, "steps": steps}
        study = Study(recipe, list(candidates), splits, folder, source, timed, about, since)
        study._write()
        return study

    def count_time(self) -> None:
        """Add the seconds since the last call of this, so that a killed comparison keeps its count."""
        now = time.monotonic()
        self.about["seconds"] = (self.about.get("seconds") or 0.0) + now - self._since
        self._since = now
        self._write()

    def leave_out(self, parts: Sequence[str]) -> None:
        """Write what there was no time for."""
        if self.recipe.compare.within is not None:
            self.about["budget"] |= {"within_seconds": self.recipe.compare.within, "left_out": list(parts)}
            self._write()

    @property
    def metric(self) -> str:
        """The first metric, which decides."""
        return self.splits.metrics[0]

    def _write(self) -> None:
        write_text(
            self.folder.path / "study.json", json.dumps(self.about, indent=2, ensure_ascii=False) + "\n"
        )


def _about(recipe: Recipe, candidates: Sequence[Candidate], splits: Splits, source: str) -> Line:
    config, methods = recipe.compare, [item for item in candidates if not item.is_reference]
    origin = provenance()
    counts = {split: splits.counts.get(split, 0) for split in ("train", "dev", "test", "unseen")}
    counts |= {"newcomers": splits.counts["newcomers"]} if splits.newcomers else {}
    return {
        "kind": "study",
        "version": VERSION,
        "name": Path(source or recipe.output).stem,
        "model": recipe.model.id,
        "dtype": splits.dtype,
        "weights": recipe.train.weights,
        "task": recipe.task.kind,
        "metric": splits.metrics[0],
        "higher_is_better": METRICS[splits.metrics[0]].higher_is_better,
        "directions": {name: METRICS[name].higher_is_better for name in splits.metrics},
        "margin": config.margin,
        "contestants": [item.describe() for item in candidates],
        "seeds": list(range(recipe.train.seed, recipe.train.seed + config.seeds)),
        "budget": {
            "search_trials": max((trials_of(item, config) for item in methods), default=0),
            "steps": recipe.train.steps,
            "batch_size": recipe.train.batch_size,
        },
        "rows": counts,
        "labels": splits.labels,
        "prompts": splits.prompts,
        "newcomers": {"prompts": splits.newcomers, "rows": splits.counts.get("newcomers-train", 0)},
        "unseen": splits.unseen,
        "machine": _machine(),
        "versions": origin["versions"],
        "command": origin["command"],
        "created": origin["created"],
        "hashes": {"data": splits.hashes, "base": splits.base, "recipe": recipe.fingerprint()},
        "recipe": recipe.untracked().to_dict(),
    }


def _machine() -> Line:
    import psutil

    from .._system.threads import right_number

    return {
        "cpu": _cpu(),
        "cores": right_number(),
        "threads": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
