"""The files of a comparison are named, read and written here; records are whole or absent.

A record has a hash of its content, which shows whether its file holds what was written. Records of earlier
versions have no hash: their keys and types are checked instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import TypeAdapter, ValidationError

from ..._system.files import write_text
from .phase import PHASES
from .types import Record

__all__ = ["Folder", "Record"]

DIGEST = "digest"
JOURNAL = "metrics.jsonl"  # of a training; `tracking.journal` writes it
_RECORD = TypeAdapter(Record)


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

    def journal(self, id: str) -> Path:
        """Return the file with the steps of a trial's training; `tidy` keeps it beside the record."""
        inside = self.artifact(id) / JOURNAL
        return inside if inside.exists() else self.path / "trials" / f"{id}.{JOURNAL}"

    def read(self, id: str) -> Record | None:
        """Read a trial's record; None if it has not ended or its file is damaged, so that it runs again."""
        path = self.record(id)
        try:
            record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        except (OSError, ValueError, RecursionError):
            return None
        return record if _is_whole(record) and record["id"] == id else None

    def tidy(self, record: Record) -> None:
        """Remove the files that a trial with a record no longer needs: its checkpoint, mostly its prompt."""
        folder = self.artifact(record["id"])
        keeps_prompt = PHASES[record["phase"]].keeps_prompt
        if not keeps_prompt and (folder / JOURNAL).is_file():
            with contextlib.suppress(OSError):
                (folder / JOURNAL).replace(self.path / "trials" / f"{record['id']}.{JOURNAL}")
        shutil.rmtree(folder / "checkpoint" if keeps_prompt else folder, ignore_errors=True)

    def write(self, record: Record) -> None:
        """Write a trial's record, whole or not at all."""
        content = {key: value for key, value in record.items() if key != DIGEST}
        text = json.dumps({**content, DIGEST: _hash(content)}, ensure_ascii=False)
        write_text(self.record(record["id"]), text + "\n")


def _is_whole(value: Any) -> TypeGuard[Record]:
    """Return whether a value that was read is a record as it was written."""
    if not isinstance(value, dict):
        return False
    if DIGEST in value:
        return value[DIGEST] == _hash({key: item for key, item in value.items() if key != DIGEST})
    try:
        record = _RECORD.validate_python(value)
    except (ValidationError, RecursionError):
        return False
    if record["status"] == "failed":
        return record["error"] is not None
    phase = PHASES.get(record["phase"])
    return phase is None or all(key in record for key in phase.writes)


def _hash(content: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) of the content as JSON."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
