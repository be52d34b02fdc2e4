"""The seconds of a distillation are counted over all of its calls: an interrupted run resumes in another one.

They are kept in a file and written during the work, so that a run that is killed loses few of them.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import final

from .._system.files import write_text
from ..config.schema import Recipe
from ..training import decisive
from ..training.output_folder import starts_anew

FILE = "elapsed.json"
EVERY = 20.0  # seconds between two writes


@final
class Elapsed:
    """Counts seconds from `with` on, beside those that earlier calls of the same run have written.

    The number of seeds does not make it another run. Nothing is written before the folder exists.
    """

    def __init__(self, folder: Path, recipe: Recipe, *, restart: bool, overwrite: bool) -> None:
        settings = {k: v for k, v in decisive.settings(recipe).items() if k != "train.seed"}
        self._run = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self._file, self.before = folder / FILE, 0.0
        if not starts_anew(Path(recipe.output), restart=restart, overwrite=overwrite):
            self.before = _read(self._file).get(self._run, 0.0)
        self._started, self._total = time.perf_counter(), self.before
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_often, daemon=True)

    def __enter__(self) -> Elapsed:
        self._started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ended.is_set():
            self.stop()

    def stop(self, *, count: bool = True) -> float:
        """End counting, and return the seconds of all calls, without those of this one unless `count`."""
        self._ended.set()
        self._thread.join()
        self._total = self.before + (time.perf_counter() - self._started if count else 0.0)
        self._write(self._total)
        return self._total

    def _write_often(self) -> None:
        while not self._ended.wait(EVERY):
            self._write(self.before + time.perf_counter() - self._started)

    def _write(self, seconds: float) -> None:
        if self._file.parent.is_dir():
            write_text(self._file, json.dumps({self._run: seconds}) + "\n")


def _read(file: Path) -> dict[str, float]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it is lost; the work is not
        return {}
