"""The answer of a pilot follows the rule of a comparison, on the dev rows of each method's best trial.

The records become what a comparison's report reads (`compare.report.schema`), with `dev` as the split, so
that the rule (`compare.report.decision`) and its words are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ..compare.candidates import REFERENCES
from ..compare.measures.quality import CandidateRows, decisive
from ..compare.records.types import Record
from ..compare.report.answer import answer
from ..compare.report.schema import Comparison, Contestant, PairTest, Score, Study, Trial
from ..compare.report.verdict import verdict

SPLIT = "dev"


@dataclass(frozen=True)
class PilotAnswer:
    """The answer names the trained method to take, in a headline and sentences; `decision` has its reasons.

    The method is None where no trained method has a score.
    """

    method: str | None
    headline: str
    sentences: tuple[str, ...]
    decision: dict[str, Any] | None


def answer_of(study: Mapping[str, Any], best: Sequence[Record], folder: Path) -> PilotAnswer:
    """Return the answer from each method's best record; of equally likely methods the first is named.

    `study` is what `study.json` holds. Records of an earlier version hold no rows: nothing is then tested.
    """
    comparison = _comparison(study, best, folder)
    decided = verdict(comparison)
    headline, sentences = answer(comparison, decided)
    if decided is None:
        return PilotAnswer(None, headline, tuple(sentences), None)
    decision = {**asdict(decided.decision), "tells": decided.decision.tells}
    return PilotAnswer(decided.chosen, headline, tuple(sentences), decision)


def _comparison(study: Mapping[str, Any], best: Sequence[Record], folder: Path) -> Comparison:
    metric, margin = study["metric"], study["margin"]
    names = [record["contestant"] for record in best]
    contestants = [Contestant(name, is_reference=name in REFERENCES) for name in names]
    higher = study["higher_is_better"]
    result = Comparison(folder, Study(metric, contestants, higher_is_better=higher, margin=margin))
    entries, steps = [], max((record.get("steps") or 0 for record in best), default=0)
    for record in best:
        name, rows = record["contestant"], record.get("dev_rows") or record.get("examples") or []
        is_reference = name in REFERENCES
        seed = None if is_reference else record["seed"]
        measured = (record.get("metrics") or {}).get(metric) or {}
        value = (record.get("dev") or {}).get(metric, measured.get("value"))
        metrics = {metric: {"value": value, "low": measured.get("low"), "high": measured.get("high")}}
        metrics[metric]["n"] = len(rows) or study["rows"]["dev"]
        result.scores.append(Score(name, SPLIT, metrics, seed=seed))
        if not is_reference:
            result.trials.append(Trial(record["id"], name, "final", "done", cost=_cost(record, steps)))
        entries.append(CandidateRows(name, [rows] if rows else [], is_reference))
    if all(entry.seeds for entry in entries if not entry.is_reference):
        tests, result.standings = decisive(entries, metric, margin, SPLIT)
        keys = [item.name for item in fields(PairTest)]
        result.tests = [PairTest(**{key: test[key] for key in keys}) for test in tests]
    return result


def _cost(record: Record, steps: int) -> dict[str, float | None]:
    """Return the costs that break ties: of so many steps, since a trial that ended early had fewer."""
    cost = record.get("cost") or {}
    seconds, taken = cost.get("train_seconds"), record.get("steps")
    if seconds is not None and taken:
        seconds *= steps / taken
    return {"train_seconds": seconds, "trained_parameters": cost.get("trained_parameters")}
