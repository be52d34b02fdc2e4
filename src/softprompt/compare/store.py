"""Where a comparison's files lie, and the records of its trials: written whole, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from .._system.files import write_text
from . import checksum

Record = dict[str, Any]  # what came of a trial


class Folder:
    """Where a comparison's files lie: `rows/`, `trials/`, and what is made of them."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def rows(self, split: str) -> Path:
        """The rows of a split, as they were parted."""
        return self.path / "rows" / f"{split}.jsonl"

    def record(self, id: str) -> Path:
        """What came of a trial."""
        return self.path / "trials" / f"{id}.json"

    def artifact(self, id: str) -> Path:
        """The tuned prompt of a trial, and its checkpoint while it is trained."""
        return self.path / "trials" / id

    def read(self, id: str) -> Record | None:
        """What came of a trial; None where it has not ended, or its file is damaged: then it is run again."""
        path = self.record(id)
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        except (OSError, ValueError, RecursionError):
            return None
        return found if checksum.is_whole(found) and found["id"] == id else None

    def tidy(self, record: Record) -> None:
        """Remove what a trial with a record needs no more: finals keep their prompt, the others nothing."""
        place = self.artifact(record["id"])
        shutil.rmtree(place / "checkpoint" if record["phase"] == "final" else place, ignore_errors=True)

    def write(self, record: Record) -> None:
        """Keep what came of a trial: whole, or not at all."""
        text = json.dumps(checksum.sealed(record), ensure_ascii=False)
        write_text(self.record(record["id"]), text + "\n")
