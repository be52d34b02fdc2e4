"""A comparison's files, read and checked: `results.jsonl`, `examples.jsonl`, `study.json`.

A line's fields that are not named here are passed over, so that a newer comparison can say more; what is
named and missing is an error with the line's number. Numbers that are not finite are None.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from ...errors import SoftPromptError
from .schema import (
    VERSION,
    Comparison,
    Contestant,
    Control,
    Example,
    Finding,
    PairTest,
    Point,
    RowRecord,
    Score,
    Serving,
    Spent,
    Standing,
    Study,
    Trial,
)

T = TypeVar("T")


_LISTS: dict[str, tuple[str, type]] = {
    "trial": ("trials", Trial),
    "score": ("scores", Score),
    "example": ("examples", Example),
    "curve": ("curves", Point),
    "table": ("tables", Point),
    "time": ("times", Spent),
    "serving": ("servings", Serving),
    "control": ("controls", Control),
    "test": ("tests", PairTest),
    "standing": ("standings", Standing),
    "finding": ("findings", Finding),
}


def comparison(folder: Path) -> Comparison:
    """Read a folder. Raises SoftPromptError where it holds no comparison, or a damaged or newer one."""
    results = folder / "results.jsonl"
    if not results.is_file():
        raise SoftPromptError(
            f"no comparison in {folder}",
            why="it has no results.jsonl",
            fix="name the folder that `softprompt compare` wrote",
        )
    lines = list(_lines(results))
    result = Comparison(folder, _study(folder, lines))
    for where, line in lines:
        if line.get("kind") in _LISTS:
            name, kind = _LISTS[line["kind"]]
            getattr(result, name).append(_take(kind, line, where))
    if (folder / "examples.jsonl").is_file():
        for where, line in _lines(folder / "examples.jsonl"):
            _text(result, line, where)
    return result


def _text(result: Comparison, line: dict[str, Any], where: str) -> None:
    try:
        key = (line["split"], line["row"])
        if "prediction" in line:
            answers = result.answers.setdefault((*key, line["contestant"]), {})
            answers[line.get("seed")] = str(line["prediction"])
        else:
            result.rows[key] = RowRecord(
                str(line["input"]), [str(text) for text in line.get("references") or []]
            )
    except KeyError as missing:
        raise _damaged(where, f"it has no {missing}") from None


def _study(folder: Path, lines: list[tuple[str, dict[str, Any]]]) -> Study:
    where, line = next((pair for pair in lines if pair[1].get("kind") == "study"), ("", None))
    if line is None and (folder / "study.json").is_file():
        where = str(folder / "study.json")
        try:
            line = _finite(json.loads(Path(where).read_text(encoding="utf-8")))
        except ValueError as error:
            raise _damaged(where, str(error)) from None
    if line is None:
        raise _damaged(str(folder), "neither results.jsonl nor study.json says what was compared")
    if line.get("version", VERSION) > VERSION:
        raise SoftPromptError(
            f"{where} has version {line['version']}",
            why=f"this softprompt reads version {VERSION}",
            fix="pip install -U softprompt",
        )
    contestants = [_take(Contestant, item, where) for item in line.get("contestants") or []]
    return _take(Study, {**line, "contestants": contestants}, where)


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with open(path, encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            where = f"{path}, line {number}"
            try:
                line = json.loads(text)
            except ValueError as error:
                raise _damaged(where, str(error)) from None
            if not isinstance(line, dict):
                raise _damaged(where, "it is not a JSON object")
            yield where, _finite(line)


def _take(kind: type[T], line: dict[str, Any], where: str) -> T:
    """The dataclass of the fields that it names; null where a field has a default means the default."""
    known = {}
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        key = item.metadata.get("key", item.name)
        if required and key not in line:
            raise _damaged(where, f"it has no '{key}'")
        if key in line and (required or line[key] is not None):
            known[item.name] = line[key]
    return kind(**known)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _damaged(where: str, why: str) -> SoftPromptError:
    return SoftPromptError(
        f"cannot read {where}", why=why, fix="run `softprompt compare` again: it rebuilds it"
    )
