"""Each finished piece is one file of results, from which a run that was cut off continues."""

from __future__ import annotations

import gc
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from benchmarks.training.line import Line

from .piece import Piece, Subject

#: In the message of an error after which nothing else runs on the GPU in the same process.
LOST = ("cuda error", "device-side assert", "acceleratorerror", "cublas_status", "cudnn_status")


@dataclass(frozen=True)
class Result:
    """Holds the lines of a piece that has ended, and the error if it ended with one."""

    piece: str
    kind: str
    lines: tuple[Line, ...]
    seconds: float
    settings: Mapping[str, Any]  # of the run: results of other settings do not count
    error: str = ""
    trace: str = ""

    @property
    def is_lost(self) -> bool:
        """Return whether the process cannot use the GPU any more."""
        return _is_lost(self.error)

    def faults(self) -> list[str]:
        """Return what is wrong: the error, and each wrong line."""
        wrong = [f"{line.case}: {line.fault}" for line in self.lines if line.fault]
        return [*wrong, *([self.error] if self.error else [])]


def attempt(piece: Piece, subject: Subject, now: Callable[[], float], settings: Mapping[str, Any]) -> Result:
    """Run a piece to its end, or to its error, which is a part of the result."""
    lines: list[Line] = []
    started, error, trace = now(), "", ""
    try:
        for line in piece.run(subject):
            lines.append(line)
        if not lines:
            error = "it gave no result"
    except Exception as failure:  # whatever it is, the other pieces run
        error = _first_line(failure)
        trace = "".join(traceback.format_exception(failure)[-12:])
    if torch.cuda.is_available() and not _is_lost(error):
        gc.collect()
        torch.cuda.empty_cache()
    return Result(piece.name, piece.kind, tuple(lines), now() - started, settings, error, trace)


def _is_lost(error: str) -> bool:
    return any(sign in error.lower() for sign in LOST)


def _first_line(error: BaseException) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"


def save(result: Result, folder: Path) -> None:
    """Write a result, whole or not at all."""
    file = path(folder, result.piece)
    working = file.with_suffix(".part")
    values = {**asdict(result), "lines": [line.to_json() for line in result.lines]}
    working.write_text(json.dumps(values, indent=1), encoding="utf-8")
    working.replace(file)


def read(folder: Path, pieces: Sequence[Piece], settings: Mapping[str, Any]) -> dict[str, Result]:
    """Return the results of these pieces that were made with these settings, by their names."""
    known = {f.name for f in fields(Line)}
    results = {}
    for piece in pieces:
        file = path(folder, piece.name)
        values = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if values.get("settings") == dict(settings):
            lines = [Line(**{k: v for k, v in line.items() if k in known}) for line in values["lines"]]
            results[piece.name] = Result(**{**values, "lines": tuple(lines)})
    return results


def path(folder: Path, piece: str) -> Path:
    """Return the file of a piece's result."""
    return folder / f"{piece.replace('/', '_')}.json"
