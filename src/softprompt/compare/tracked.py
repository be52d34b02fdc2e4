"""The trials of a comparison are runs in its trackers, in one group, and one more run has the table.

Trials run in other processes, on a cluster too; the process that keeps their records writes them to the
trackers, each once. `tracked.json` says which trials a tracker has, so that a later call adds the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import yaml

from .._system.files import write_text
from .._system.progress import say
from ..config.schema import Recipe
from ..config.sections.track import TrackConfig
from ..tracking.base import Subject
from ..tracking.feed import Feed
from ..tracking.journal import read
from ..tracking.registry import makers
from ..tracking.session import numbers
from ..tracking.values import cleaned, flat
from .manifest import Line, Study
from .records.types import Record

FILE = "tracked.json"


@final
class TrialTracking:
    """Writes trials to trackers. One that fails is noted once, and gets no more."""

    def __init__(self, study: Study) -> None:
        self._study, self._folder = study, study.folder.path
        self._track = _placed(study.recipe.track, self._folder)
        self._lost: set[str] = set()
        self._overview: list[Feed] = []
        try:
            self._has: dict[str, list[str]] = json.loads((self._folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._has = {}

    def start(self) -> None:
        """Begin the run of the whole comparison. Raises SoftPromptError where a tracker does not start."""
        if not self._track.chosen():
            return
        subject = self._subject("comparison", cleaned(self._study.recipe.untracked().to_dict()), {})
        for name, make in makers(self._track, subject).items():
            feed = Feed(name, make())
            feed.start(None)
            self._overview.append(feed)
            say(f"tracking with {name}: {feed.where}")

    def record(self, record: Record) -> None:
        """Write a trial that has ended, unless a tracker has it already."""
        id = record["id"]
        for name, config in self._track.chosen().items():
            place = json.dumps(cleaned(config.model_dump(mode="json")), sort_keys=True)
            known = self._has.setdefault(f"{name} {hashlib.sha256(place.encode()).hexdigest()[:8]}", [])
            if name in self._lost or id in known:
                continue
            tracker = TrackConfig.model_validate({name: config.model_dump(exclude_none=True)})
            feed = Feed(name, makers(tracker, self._trial(record))[name]())
            try:
                feed.start(None)
                lines = self._lines(record)
                for line in lines:
                    feed.log(numbers(line), line["step"])
                facts = {"status": record["status"], "trial": id}
                last = lines[-1]["step"] if lines else 0
                status = "failed" if record["status"] == "failed" else "finished"
                feed.end(scores(record), facts, last, status)
            except Exception as error:
                feed.lose(str(error))
            if feed.is_lost:
                self._lost.add(name)
            else:
                known.append(id)
                write_text(self._folder / FILE, json.dumps(self._has))

    def end(self, lines: Sequence[Line]) -> None:
        """Write the final table: each candidate's means over rows and seeds, with their intervals."""
        columns = ["candidate", "split", "metric", "mean", "low", "high", "rows"]
        rows = [
            [line["contestant"], line["split"], name, *(score.get(k) for k in ("value", "low", "high", "n"))]
            for line in lines
            if line.get("kind") == "score" and (line.get("seed") is None)
            for name, score in line["metrics"].items()
        ]
        text = "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in [columns, ["---"] * 7, *rows])
        values = {f"{row[1]}/{row[2]}/{row[0]}": row[3] for row in rows if isinstance(row[3], (int, float))}
        facts = {"folder": str(self._folder), "recipe_hash": self._study.recipe.fingerprint()}
        for feed in self._overview:
            if rows:
                feed.table("results", columns, rows, text)
            feed.end(values, facts, 0, "finished")
        self._overview = []

    def stop(self) -> None:
        """End without a table, unless it has ended."""
        for feed in self._overview:
            feed.end({}, {}, 0, "interrupted")
        self._overview = []

    def _trial(self, record: Record) -> Subject:
        candidate = next(c for c in self._study.candidates if c.name == record["contestant"])
        recipe: Recipe = candidate.recipe
        if not candidate.is_reference:
            recipe = candidate.with_settings(record["settings"], **{"train.seed": record["seed"] or 0})
        content = cleaned(recipe.untracked().to_dict())
        settings = [f"{key.split('.')[-1]}={value}" for key, value in record["settings"].items()]
        about = {"candidate": record["contestant"], "phase": record["phase"], "seed": record["seed"]}
        about |= {"split": record["about"].get("split")}
        parts = [record["contestant"], record["phase"], about["split"], *settings, f"seed={record['seed']}"]
        name = " ".join(part for part in parts if part).replace("/", "_")
        return self._subject(name, content, {k: str(v) for k, v in about.items() if v is not None})

    def _subject(self, name: str, content: dict[str, Any], about: Mapping[str, str]) -> Subject:
        content = {key: value for key, value in content.items() if key != "compare"}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        return Subject(self._folder, name, {**flat(content), **about}, text, {}, self._folder.name, True)

    def _lines(self, record: Record) -> list[Line]:
        """Return the steps of a trial: of its journal, else those after which the dev rows were scored."""
        lines = [
            line for line in read(self._study.folder.journal(record["id"])) if line.get("kind") == "step"
        ]
        if not lines:
            for entry in record.get("history") or []:
                dev = {key: value for key, value in entry.items() if key not in ("step", "loss")}
                lines.append({"step": entry["step"], "loss": entry.get("loss"), "dev": dev})
        return lines


def scores(record: Record) -> dict[str, float]:
    """Return the numbers that a trial ended with: `best/…` (dev rows), `test/…`, `cost/…`, `serving/…`."""
    split = record["about"].get("split", "dev")
    values: dict[str, Any] = {f"best/{name}": value for name, value in (record.get("dev") or {}).items()}
    values |= {f"{split}/{name}": score.get("value") for name, score in (record.get("metrics") or {}).items()}
    values |= {f"cost/{name}": value for name, value in (record.get("cost") or {}).items()}
    values |= {f"serving/{name}": value for name, value in (record.get("serving") or {}).items()}
    return {k: float(v) for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


@contextlib.contextmanager
def tracked(study: Study) -> Iterator[TrialTracking]:
    """Track the trials of a study; its trackers start before the first trial."""
    trials = TrialTracking(study)
    try:
        trials.start()
        yield trials
    finally:
        trials.stop()


def _placed(track: TrackConfig, folder: Path) -> TrackConfig:
    """Give TensorBoard a folder with one folder for each trial."""
    if track.tensorboard is None or track.tensorboard.dir is not None:
        return track
    inside = track.tensorboard.model_copy(update={"dir": str(folder / "tensorboard")})
    return track.model_copy(update={"tensorboard": inside})


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
