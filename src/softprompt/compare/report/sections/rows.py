"""The section of inputs × methods shows what each method answered to each row, for the page's filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....page.blocks import Matrix, Section, Text
from ....page.numbers import unit
from ..aggregate import mean, splits
from ..schema import Comparison, Example, RowRecord
from ..style import looks


@dataclass(frozen=True)
class Cell:
    """One method's answers to a row: `mark` in the matrix, `answers` with their details below it."""

    name: str
    mark: str
    words: str
    failed: bool
    answers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class MatrixRow:
    """A row of the matrix is `failed` where a method failed, `different` where methods differ."""

    split: str
    number: int
    input: str
    references: Sequence[str]
    cells: Sequence[Cell]
    failed: bool
    different: bool


def section(comparison: Comparison) -> Section:
    scored: dict[tuple[str, int], dict[str, list[Example]]] = {}
    for item in comparison.examples:
        scored.setdefault((item.split, item.row), {}).setdefault(item.contestant, []).append(item)
    if not scored:
        return Section("rows", "Rows", [Text("No scores of single rows were kept.", quiet=True)])
    judge = _Judge(comparison)
    order = splits(comparison)
    keys = sorted(scored, key=lambda key: (order.index(key[0]) if key[0] in order else 99, key))
    names = [name for name in looks(comparison) if any(name in by_name for by_name in scored.values())]
    lines = [_line(comparison, judge, key, scored[key], names) for key in keys]
    matrix = Matrix(names, lines, list(dict.fromkeys(key[0] for key in keys)), judge.hints(), judge.graded)
    note = (
        []
        if comparison.rows
        else [Text("The texts of the rows were not kept with this comparison.", quiet=True)]
    )
    return Section("rows", "Rows", [*note, matrix])


class _Judge:
    """Decides when a score counts as a failure, and when methods differ.

    Scores of right and wrong decide alone. Of graded scores, the worst quarter of all answers are failures,
    and methods differ in the rows whose spread is in the widest quarter.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.unit = unit(comparison.study.metric)
        self.sign = 1 if comparison.study.higher_is_better else -1
        known = [self.sign * item.score for item in comparison.examples if item.score is not None]
        self.graded = any(score not in (0, 1) for score in known)
        self.limit = sorted(known)[(len(known) - 1) // 4] if known else 0.0
        self.wide = 0.0
        if self.graded:
            spreads = sorted(self._spreads(comparison))
            self.wide = spreads[3 * len(spreads) // 4] if spreads else 0.0

    def _spreads(self, comparison: Comparison) -> list[float]:
        rows: dict[tuple[str, int], dict[str, list[float]]] = {}
        for item in comparison.examples:
            if item.score is not None:
                rows.setdefault((item.split, item.row), {}).setdefault(item.contestant, []).append(item.score)
        means = [[mean(scores) for scores in by_name.values()] for by_name in rows.values()]
        return [max(values) - min(values) for values in means]

    def failed(self, score: float) -> bool:
        return self.sign * score <= self.limit if self.graded else score < 1

    def different(self, scores: list[float], answers: set[str]) -> bool:
        if self.graded:
            return len(scores) > 1 and max(scores) - min(scores) >= max(self.wide, 1e-9)
        return len(set(scores)) > 1 or len(answers) > 1

    def hints(self) -> dict[str, str]:
        if self.graded:
            return {
                "failures": "an answer is among the worst quarter of all",
                "different": "the methods' scores differ more than in three quarters of the rows",
            }
        return {
            "failures": "at least one method is wrong",
            "different": "the methods do not all answer alike",
        }


def _line(
    comparison: Comparison,
    judge: _Judge,
    key: tuple[str, int],
    by_name: dict[str, list[Example]],
    names: list[str],
) -> MatrixRow:
    row = comparison.rows.get(key, RowRecord())
    cells = [_cell(comparison, judge, key, name, by_name.get(name, [])) for name in names]
    scores = [
        mean(known)
        for ones in by_name.values()
        if (known := [item.score for item in ones if item.score is not None])
    ]
    answers = {text.strip() for name in by_name for text in comparison.answers.get((*key, name), {}).values()}
    text = row.input or "(text not kept)"
    failed = any(cell.failed for cell in cells)
    return MatrixRow(*key, text, row.references, cells, failed, judge.different(scores, answers))


def _cell(
    comparison: Comparison, judge: _Judge, key: tuple[str, int], name: str, ones: list[Example]
) -> Cell:
    scores = [item.score for item in ones if item.score is not None]
    if not scores:
        return Cell(name, "–", "not scored", False)
    answers = _answers(comparison, judge, key, ones)
    failed = any(judge.failed(score) for score in scores)
    if judge.graded:
        value = judge.unit.bare(mean(scores))
        return Cell(name, value, value, failed, answers)
    right = sum(score >= 1 for score in scores)
    if right in (0, len(scores)):
        return Cell(name, "✓" if right else "✗", "right" if right else "wrong", failed, answers)
    return Cell(name, f"{right}/{len(scores)}", f"right with {right} of {len(scores)} seeds", failed, answers)


def _answers(
    comparison: Comparison, judge: _Judge, key: tuple[str, int], ones: list[Example]
) -> tuple[tuple[str, str], ...]:
    """List the answers; seeds with the same answer are listed together."""
    texts: dict[str, list[Example]] = {}
    for item in ones:
        texts.setdefault(_text(comparison, key, item), []).append(item)
    result = []
    for text, same in texts.items():
        seeds = [str(item.seed) for item in same if item.seed is not None]
        who = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}" if seeds else "answer"
        details = [_detail(judge, item) for item in same]
        result.append((who, text + (f"  [{', '.join(details)}]" if all(details) else "")))
    return tuple(result)


def _text(comparison: Comparison, key: tuple[str, int], example: Example) -> str:
    labels = comparison.study.labels or []
    text = comparison.answers.get((*key, example.contestant), {}).get(example.seed)
    if text is None and example.label is not None and 0 <= example.label < len(labels):
        text = labels[example.label]
    return "(text not kept)" if text is None else text


def _detail(judge: _Judge, example: Example) -> str:
    if judge.graded and example.score is not None:
        return judge.unit.value(example.score)
    return f"{100 * example.confidence:.0f} % sure" if example.confidence is not None else ""
