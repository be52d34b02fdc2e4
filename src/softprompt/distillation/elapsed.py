"""The seconds of a distillation are counted over all of its calls: an interrupted run resumes in another one.

They are kept in a file and written during the work, so that a run that is killed loses few of them.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, final

from .._system.files import write_text
from ..config.schema import Recipe
from ..training import decisive

FILE = "elapsed.json"
FINISHED = "finished"  # the run that had nothing left to train
EVERY = 20.0  # seconds between two writes


@final
class Elapsed:
    """Counts seconds from `since` (by default now) on, beside those of earlier calls of the same run.

    The number of seeds does not make it another run. Nothing is written before the folder exists. With
    `overwrite` the seconds of a run that was finished are dropped, and those of an interrupted one count.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, *, restart: bool, overwrite: bool, since: float | None = None
    ) -> None:
        settings = {k: v for k, v in decisive.settings(recipe).items() if k != "train.seed"}
        self._run = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self._file, self.before = folder / FILE, 0.0
        known = _read(self._file)
        is_anew = restart or (overwrite and known.get(FINISHED) == self._run)
        if not is_anew:
            self.before = known.get(self._run, 0.0)
        # a call that is refused must not remove the seconds of the run that is there
        self._others = {k: v for k, v in known.items() if k != self._run and not (is_anew and k == FINISHED)}
        self._started = time.perf_counter() if since is None else since
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_often, daemon=True)

    def __enter__(self) -> Elapsed:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ended.is_set():
            self._end(self._others)

    def stop(self, *, count: bool = True) -> float:
        """End a run that is finished: return the seconds of all calls, and of this one if `count`."""
        return self._end({FINISHED: self._run}, count=count)

    def _end(self, beside: Mapping[str, Any], *, count: bool = True) -> float:
        self._ended.set()
        self._thread.join()
        total = self.before + (time.perf_counter() - self._started if count else 0.0)
        self._write(total, beside)
        return total

    def _write_often(self) -> None:
        while not self._ended.wait(EVERY):
            self._write(self.before + time.perf_counter() - self._started, self._others)

    def _write(self, seconds: float, beside: Mapping[str, Any]) -> None:
        if self._file.parent.is_dir():
            write_text(self._file, json.dumps({self._run: seconds, **beside}) + "\n")


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it is lost; the work is not
        return {}
