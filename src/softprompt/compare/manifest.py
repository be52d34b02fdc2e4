"""What was asked, and on what: `study.json`, which is also the first line of `results.jsonl`."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._system.files import write_text
from .._system.provenance import provenance
from ..config.schema import Recipe
from ..evaluation.metrics import METRICS
from .candidates import Candidate
from .report.schema import VERSION
from .search import trials_of
from .splits import Splits
from .store import Folder

Line = dict[str, Any]


@dataclass
class Study:
    """What was asked, and on what."""

    recipe: Recipe
    who: list[Candidate]
    ground: Splits
    folder: Folder
    source: str = ""  # the recipe's file, for commands to name
    about: Line = field(default_factory=dict)
    _since: float = 0.0  # until when its time is counted

    @staticmethod
    def begin(
        recipe: Recipe,
        who: Sequence[Candidate],
        ground: Splits,
        folder: Folder,
        source: str,
        since: float,
    ) -> Study:
        """Write `study.json` before anything is run. Its time counts from `since` (`time.monotonic`)."""
        about = _about(recipe, who, ground, source)
        before = _before(folder)
        about["started"] = before.get("started") or about.pop("created")
        about["seconds"] = before.get("seconds") or 0.0
        study = Study(recipe, list(who), ground, folder, source, about, since)
        study._write()
        return study

    def count_time(self) -> None:
        """Add the seconds since this was last done: a comparison that is killed keeps what it had counted."""
        now = time.monotonic()
        self.about["seconds"] = (self.about.get("seconds") or 0.0) + now - self._since
        self._since = now
        self._write()

    def leave_out(self, what: Sequence[str]) -> None:
        """Say what there was no time for."""
        if self.recipe.compare.within is not None:
            self.about["budget"] |= {"within_seconds": self.recipe.compare.within, "left_out": list(what)}
            self._write()

    @property
    def metric(self) -> str:
        """The first metric: it decides."""
        return self.ground.metrics[0]

    def _write(self) -> None:
        write_text(
            self.folder.path / "study.json", json.dumps(self.about, indent=2, ensure_ascii=False) + "\n"
        )


def _about(recipe: Recipe, who: Sequence[Candidate], ground: Splits, source: str) -> Line:
    how, methods = recipe.compare, [one for one in who if not one.is_reference]
    made = provenance()
    counts = {split: ground.counts.get(split, 0) for split in ("train", "dev", "test", "unseen")}
    counts |= {"newcomers": ground.counts["newcomers"]} if ground.newcomers else {}
    return {
        "kind": "study",
        "version": VERSION,
        "name": Path(source or recipe.output).stem,
        "model": recipe.model,
        "dtype": ground.dtype,
        "task": recipe.task.kind,
        "metric": ground.metrics[0],
        "higher_is_better": METRICS[ground.metrics[0]].higher_is_better,
        "contestants": [one.describe() for one in who],
        "seeds": list(range(recipe.train.seed, recipe.train.seed + how.seeds)),
        "budget": {
            "search_trials": max((trials_of(one, how) for one in methods), default=0),
            "steps": recipe.train.steps,
            "batch_size": recipe.train.batch_size,
        },
        "rows": counts,
        "labels": ground.labels,
        "prompts": ground.prompts,
        "newcomers": {"prompts": ground.newcomers, "rows": ground.counts.get("newcomers-train", 0)},
        "unseen": ground.unseen,
        "machine": _machine(),
        "versions": made["versions"],
        "command": made["command"],
        "created": made["created"],
        "hashes": {"data": ground.hashes, "base": ground.base, "recipe": recipe.fingerprint()},
        "recipe": recipe.to_dict(),
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


def _before(folder: Folder) -> Line:
    try:
        found = json.loads((folder.path / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    started, seconds = found.get("started"), found.get("seconds")
    return {
        "started": started if isinstance(started, str) else None,
        "seconds": seconds if isinstance(seconds, int | float) else None,
    }
