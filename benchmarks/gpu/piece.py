"""A piece is one check or one measurement; all of them share a subject. This file depends on none of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks import base_models
from benchmarks.training import tiny
from benchmarks.training.line import Line
from benchmarks.training.options import Options
from softprompt.lm import smollm2

from . import reviews

ROWS = 600  # made-up rows of a set
LONGEST = 40  # words of a made-up row


@dataclass(frozen=True)
class Subject:
    """It holds models and rows, in full or in the short form, which has a tiny model for all."""

    folder: Path  # for files that the pieces need
    data: Path | None = None  # sets of rows as benchmarks.training takes them; None: made-up rows
    short: bool = False
    _made: dict[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> str:
        return base_models.device()

    def model(self, name: str) -> str:
        """Return the name or folder to load: in the short form, of a tiny model.

        Where SmolLM2 is not installed, a random model of its shape takes its place.
        """
        if self.short:
            return "random-tiny" if name.startswith("random-") else str(self._tiny()[0])
        return name if name != "smollm2" or smollm2.is_installed() else "random-135m"

    def options(self, model: str, **changes: Any) -> Options:
        """Return the settings of a measure of benchmarks.training on this model."""
        if self.short:
            folder, data = self._tiny()
            return replace(Options(data).in_short(folder, data), model=self.model(model))
        settings = {"dtypes": ("bfloat16",), "sets": ("sst2",), "blocks": 3, "steps": 8}
        options = Options(self.data or self._rows(), self.model(model), self.folder / "training")
        return replace(options, **{**settings, **changes})

    def reviews(self) -> Path:
        """Return a folder of reviews whose words tell their sentiment."""
        if self.data is not None and not self.short:
            return self.data
        if "reviews" not in self._made:
            self._made["reviews"] = reviews.write(self.folder / "reviews")
        return self._made["reviews"]

    def _rows(self) -> Path:
        if "rows" not in self._made:
            self._made["rows"] = tiny.write_rows(_fresh(self.folder / "rows"), ROWS, LONGEST)
        return self._made["rows"]

    def _tiny(self) -> tuple[Path, Path]:
        if "tiny" not in self._made:
            self._made["tiny"] = tiny.make(_fresh(self.folder / "tiny"))
        return self._made["tiny"]


@dataclass(frozen=True)
class Piece:
    """It is one check or measurement that gives lines, with about the seconds that they take on an H100."""

    name: str  # also of its result file
    kind: Literal["check", "measure"]
    run: Callable[[Subject], Iterator[Line]]
    seconds: float

    @property
    def limit(self) -> float:
        """Seconds after which it is ended: it hangs, or is far slower than expected."""
        return 60 + 3 * self.seconds


def _fresh(folder: Path) -> Path:
    """Return the folder, empty: rows are drawn again, the same ones, in every process."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
