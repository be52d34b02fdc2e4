"""A comparison's files as dataclasses, checked: `results.jsonl`, `examples.jsonl`, `study.json`.

A line's fields that are not named here are passed over, so that a newer comparison can say more; what is
named and missing is an error with the line's number. Numbers that are not finite are None.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..errors import SoftPromptError

#: The newest version of these files that is understood here.
VERSION = 1

T = TypeVar("T")


@dataclass(frozen=True)
class Contestant:
    """A method with its options, or a reference that trains nothing of the model (zero-shot, tf-idf …)."""

    name: str
    method: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    base: str = "frozen"
    is_reference: bool = False


@dataclass(frozen=True)
class Study:
    """What was asked, and on what."""

    metric: str
    contestants: list[Contestant]
    name: str = ""
    model: str = ""
    dtype: str = ""
    task: str = ""
    higher_is_better: bool = True
    seeds: list[int] = field(default_factory=list)
    budget: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)
    labels: list[str] | None = None
    prompts: list[str] | None = None
    unseen: dict[str, Any] | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    started: str | None = None
    seconds: float | None = None
    hashes: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION


@dataclass(frozen=True)
class Trial:
    """One run: a learning rate tried, a seed of the final setting, a point of a curve."""

    id: str
    contestant: str
    phase: str
    status: str
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    rows: int | None = None
    error: dict[str, str] | None = None
    dev: dict[str, float | None] = field(default_factory=dict)
    best_step: int | None = None
    steps: int | None = None
    cost: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """A contestant's metrics on a split; `seed` None means over all seeds."""

    contestant: str
    split: str
    metrics: dict[str, dict[str, float | None]]
    seed: int | None = None
    calibration: dict[str, Any] | None = None


@dataclass(frozen=True)
class Example:
    """One row's score under one contestant and seed."""

    contestant: str
    split: str
    row: int
    score: float | None
    seed: int | None = None
    nll: float | None = None
    label: int | None = None
    target: int | None = None
    confidence: float | None = None
    prompt: int | None = None


@dataclass(frozen=True)
class Point:
    """Quality with so many training rows (a learning curve), or with so many prompts (a table)."""

    contestant: str
    value: float | None
    rows: int | None = None
    prompts: int | None = None
    seed: int | None = None
    split: str = "dev"


@dataclass(frozen=True)
class Serving:
    """What a tuned prompt costs where it is used."""

    contestant: str
    time_to_first_token_ms: float | None = None
    tokens_per_second: float | None = None
    mixed_tokens_per_second: float | None = None
    plain_tokens_per_second: float | None = None
    added_tokens: float | None = None


@dataclass(frozen=True)
class Control:
    """One measure of whether the prompt decides what comes out."""

    contestant: str
    measure: str
    value: float | None
    low: float | None = None
    high: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PairTest:
    """`difference` is a − b in the metric's own numbers, with its 95 % interval."""

    split: str
    metric: str
    a: str
    b: str
    difference: float
    significant: bool
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    n_rows: int | None = None
    n_seeds: int | None = None
    detectable: float | None = None
    rows_needed: float | None = None


@dataclass(frozen=True)
class Finding:
    """Something worth knowing about the run, with the command that mends it."""

    level: str
    what: str
    contestant: str | None = None
    evidence: str = ""
    command: str | None = None


@dataclass(frozen=True)
class Row:
    """The texts of a row that may be shown."""

    input: str = ""
    references: list[str] = field(default_factory=list)


@dataclass
class Comparison:
    """All that a folder holds. `rows` and `answers` are empty where the texts may not be shown."""

    folder: Path
    study: Study
    trials: list[Trial] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    curves: list[Point] = field(default_factory=list)
    tables: list[Point] = field(default_factory=list)
    servings: list[Serving] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    tests: list[PairTest] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    rows: dict[tuple[str, int], Row] = field(default_factory=dict)
    answers: dict[tuple[str, int, str], dict[int | None, str]] = field(default_factory=dict)

    @property
    def methods(self) -> list[Contestant]:
        """The contestants that were trained."""
        return [one for one in self.study.contestants if not one.is_reference]

    @property
    def references(self) -> list[Contestant]:
        return [one for one in self.study.contestants if one.is_reference]


_LISTS: dict[str, tuple[str, type]] = {
    "trial": ("trials", Trial),
    "score": ("scores", Score),
    "example": ("examples", Example),
    "curve": ("curves", Point),
    "table": ("tables", Point),
    "serving": ("servings", Serving),
    "control": ("controls", Control),
    "test": ("tests", PairTest),
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
    found = Comparison(folder, _study(folder, lines))
    for where, line in lines:
        if line.get("kind") in _LISTS:
            name, kind = _LISTS[line["kind"]]
            getattr(found, name).append(_take(kind, line, where))
    if (folder / "examples.jsonl").is_file():
        for where, line in _lines(folder / "examples.jsonl"):
            _text(found, line, where)
    return found


def _text(found: Comparison, line: dict[str, Any], where: str) -> None:
    try:
        key = (line["split"], line["row"])
        if "prediction" in line:
            answers = found.answers.setdefault((*key, line["contestant"]), {})
            answers[line.get("seed")] = str(line["prediction"])
        else:
            found.rows[key] = Row(str(line["input"]), [str(text) for text in line.get("references") or []])
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
    contestants = [_take(Contestant, one, where) for one in line.get("contestants") or []]
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
    for one in dataclasses.fields(kind):  # type: ignore[arg-type]
        required = one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
        if required and one.name not in line:
            raise _damaged(where, f"it has no '{one.name}'")
        if one.name in line and (required or line[one.name] is not None):
            known[one.name] = line[one.name]
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
