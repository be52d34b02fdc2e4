"""The files of a comparison are named, read and written here; records are whole or absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from .._system.files import write_text
from . import checksum
from .phase import PHASES
from .records import Record

__all__ = ["Folder", "Record"]


class Folder:
    """A folder that holds a comparison: `rows/`, `trials/`, and the results that are made of them."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def rows(self, split: str) -> Path:
        """Return the file of a split's rows."""
        return self.path / "rows" / f"{split}.jsonl"

    def record(self, id: str) -> Path:
        """Return the file of a trial's record."""
        return self.path / "trials" / f"{id}.json"

    def artifact(self, id: str) -> Path:
        """Return the folder of a trial's tuned prompt, and of its checkpoint while it trains."""
        return self.path / "trials" / id

    def read(self, id: str) -> Record | None:
        """Read a trial's record; None if it has not ended or its file is damaged, so that it runs again."""
        path = self.record(id)
        try:
            record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        except (OSError, ValueError, RecursionError):
            return None
        return record if checksum.is_whole(record) and record["id"] == id else None

    def tidy(self, record: Record) -> None:
        """Remove the files that a trial with a record no longer needs: its checkpoint, mostly its prompt."""
        folder = self.artifact(record["id"])
        keeps_prompt = PHASES[record["phase"]].keeps_prompt
        shutil.rmtree(folder / "checkpoint" if keeps_prompt else folder, ignore_errors=True)

    def write(self, record: Record) -> None:
        """Write a trial's record, whole or not at all."""
        text = json.dumps(checksum.sealed(record), ensure_ascii=False)
        write_text(self.record(record["id"]), text + "\n")
