"""The demo reports a table row for each candidate, on the test rows that all candidates finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from softprompt.evaluation.records import Evaluation, Record, score

from .corpus import Row
from .plan import Size

CHECKED = "rewrite"  # the prompt whose outputs have a reference to compare them with


@dataclass(frozen=True)
class TableRow:
    """A row has a candidate's outputs for the first test rows, and its costs."""

    name: str
    records: Sequence[Record]
    answered: int  # how many of the records have a text
    parameters: int
    bytes: int
    seconds: float
    peak_bytes: int | None  # None where the system cannot count it again for each candidate
    steps: int = 0

    def evaluation(self, rows: Sequence[Row], answered: int) -> Evaluation:
        """Return the metrics on `rows`; chrF counts the first `answered` of them."""
        records = list(self.records[: len(rows)])
        checked = [
            record for record, row in zip(records[:answered], rows, strict=False) if row["prompt"] == CHECKED
        ]
        return Evaluation(score(["perplexity"], records) | score(["chrf"] * bool(checked), checked), records)


@dataclass(frozen=True)
class DemoResult:
    """The rows of the table, which count the test rows that all candidates finished."""

    lines: Sequence[TableRow]
    all_rows: Sequence[Row]
    full: Size

    @property
    def rows(self) -> Sequence[Row]:
        """The test rows that all candidates scored."""
        return self.all_rows[: min(len(line.records) for line in self.lines)]

    @property
    def answered(self) -> int:
        """The number of those that all candidates answered in text."""
        return min(line.answered for line in self.lines)

    @property
    def reduced(self) -> list[str]:
        """Everything that is less than in the full demo, in words."""
        steps = {line.name: line.steps for line in self.lines if line.steps}
        full = self.full
        words = [f"{n} of {full.steps} steps of {name}" for name, n in steps.items() if n < full.steps]
        if len(words) == len(steps) and len(set(steps.values())) == 1:
            words = [f"{next(iter(steps.values()))} of {full.steps} steps"]
        if len(self.rows) < full.test:
            words.append(f"{len(self.rows)} of {full.test} test rows")
        if self.answered < full.answered:
            words.append(f"{self.answered} of {full.answered} answers in text")
        return words

    def evaluations(self) -> list[Evaluation]:
        """Evaluate each line."""
        return [line.evaluation(self.rows, self.answered) for line in self.lines]

    def copied(self) -> Evaluation:
        """Evaluate the input itself as the answer: the score that any rewriting must beat."""
        rows = [row for row in self.rows[: self.answered] if row["prompt"] == CHECKED]
        records = [Record(r["input"], r["input"], (r["target"],), 0, 0.0, 1) for r in rows]
        return Evaluation(score(["chrf"] * bool(rows), records), records)

    def to_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        lines = [
            {
                "name": line.name,
                **evaluation.to_json(),
                "steps": line.steps,
                "trained_parameters": line.parameters,
                "artifact_bytes": line.bytes,
                "seconds": round(line.seconds, 1),
                "peak_memory_bytes": line.peak_bytes,
            }
            for line, evaluation in zip(self.lines, self.evaluations(), strict=True)
        ]
        return {"lines": lines, "reduced": self.reduced}
