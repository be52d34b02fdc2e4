"""`metrics.jsonl` in the output folder holds what a run did, line by line. It is always written.

    {"kind": "run", "id", "started", "recipe"}              the first line
    {"kind": "tracker", "name", "id", "resumed_at"}         a run that a tracker has of it
    {"kind": "step", "step", "loss", "lr", "tokens_per_second", "seconds", "dev": {metric: value}}
    {"kind": "result", "stopped", "best_step", "dev", "plain", "artifact", "digest"}

A resumed run drops the steps after its checkpoint, which it takes again, and continues the file.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO, final

from .._system.files import write_text
from .._system.notes import note
from ..errors import SoftPromptError

FILE = "metrics.jsonl"
Line = dict[str, Any]


@final
class Journal:
    """The lines of one run are read and written. `run` names what decides its numbers: it drops others."""

    def __init__(self, folder: Path, run: str, *, anew: bool = False) -> None:
        self.path, self._run = folder / FILE, run
        lines = [] if anew else read(self.path)
        is_ours = bool(lines) and lines[0].get("kind") == "run" and lines[0].get("id") == run
        self._lines = lines if is_ours else []
        self._file: TextIO | None = None
        #: The last step that an earlier part of the run took, and so may have sent to its trackers.
        self.last_step = max((line["step"] for line in self.steps), default=0)

    @property
    def steps(self) -> list[Line]:
        """Return the lines of steps that an earlier part of the run wrote."""
        return [x for x in self._lines if x.get("kind") == "step" and isinstance(x.get("step"), int)]

    def tracked(self, name: str) -> str | None:
        """Return the id by which a tracker resumes its run; None if it has none, or failed."""
        lines = [x for x in self._lines if x.get("kind") == "tracker" and x.get("name") == name]
        return lines[-1].get("id") if lines else None

    def begin(self, first: Mapping[str, Any], step: int) -> None:
        """Open the file to continue after `step`; `first` is the content of a first line."""
        kept = [x for x in self._lines if x.get("kind") == "tracker"]
        kept += [line for line in self.steps if line["step"] <= step]
        head = self._lines[0] if self._lines else {"kind": "run", "id": self._run, **first}
        with self._noting():
            write_text(self.path, "".join(map(_text, [head, *kept])))
            self._file = open(self.path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def write(self, kind: str, content: Mapping[str, Any]) -> None:
        """Append a line."""
        if self._file is not None:
            with self._noting():
                self._file.write(_text({"kind": kind, **content}))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with self._noting():
                self._file.close()
            self._file = None

    @contextlib.contextmanager
    def _noting(self):
        """Note a failure once: a full disk does not end the run here, but where it matters."""
        try:
            yield
        except (OSError, SoftPromptError) as error:
            self._file = None
            note(f"{self.path} cannot be written ({error}): it gets no more lines, and the run continues")


def read(path: Path) -> list[Line]:
    """Read the lines of a file, without damaged ones: the last one of a killed run may be."""
    lines = []
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for text in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                if isinstance(line := json.loads(text), dict):
                    lines.append(line)
    return lines


def _text(line: Mapping[str, Any]) -> str:
    return json.dumps(_finite(line), ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
