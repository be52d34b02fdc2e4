"""Writes `results.jsonl` and `examples.jsonl`, which `softprompt.compare.report` reads.

They are made of the trials' records and can be made again at any time. `results.jsonl` holds no text of any
row, so that it may be shared where the rows may not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .._system.files import write_text
from . import diagnose, seconds
from .manifest import Line, Study
from .measures.quality import CandidateRows, decisive, shares, summaries, whole
from .phases.prompt_counts import watched
from .records.phase import PHASES
from .records.store import Folder
from .records.types import Record, RowResult, scored


def write(study: Study, records: Sequence[Record]) -> list[Line]:
    """Write both files; return the lines of `results.jsonl`."""
    findings = [{"kind": "finding", **item} for item in diagnose.findings(study, records)]
    lines = [study.about, *_lines(study, records), *findings]
    _jsonl(study.folder, "results.jsonl", lines)
    _jsonl(study.folder, "examples.jsonl", list(_texts(study, records)))
    return lines


def _lines(study: Study, records: Sequence[Record]) -> Iterator[Line]:
    for record in records:
        if PHASES[record["phase"]].is_trial_line or record["status"] == "failed":
            yield _trial(study, record)
    yield from _curves(study, records)
    yield from _tables(study, records)
    yield from seconds.lines(study.timed, records)
    for split in study.splits.scored:
        yield from _split(study, split, scored(records, split))
    for record in records:
        yield from _measured(record)


def _trial(study: Study, record: Record) -> Line:
    dev = record.get("dev") or {}
    if record["phase"] == "reference" and record["status"] == "done":
        dev = {name: score["value"] for name, score in record["metrics"].items()}
    cost: Line = {**record.get("cost", {})}
    if cost.get("artifact_bytes") is not None:
        cost["artifact_bytes_per_prompt"] = cost["artifact_bytes"] / len(study.splits.prompts)
    error = record["error"]
    if error is not None:
        error = {key: error[key] or "" for key in ("what", "why", "fix")}
    return {
        "kind": "trial",
        "id": record["id"],
        "contestant": record["contestant"],
        "phase": record["phase"],
        "settings": {key.split(".")[-1]: value for key, value in record["settings"].items()},
        "seed": record["seed"],
        "rows": record["rows"],
        "status": record["status"],
        "error": error,
        "dev": dev,
        "best_step": record.get("best_step"),
        "steps": record.get("steps"),
        "history": record.get("history") or [],
        "cost": cost,
    }


def _curves(study: Study, records: Sequence[Record]) -> Iterator[Line]:
    """Yield dev scores by the number of training rows; the finals are the last point."""
    drawn = {r["contestant"] for r in records if r["phase"] == "curve" and r["status"] == "done"}
    for record in records:
        ends = record["phase"] in ("curve", "final") and record["status"] == "done"
        if ends and record["contestant"] in drawn:
            value = record["dev"].get(study.metric)
            about = {key: record[key] for key in ("contestant", "seed", "rows")}
            yield {"kind": "curve", **about, "value": value, "split": "dev"}


def _tables(study: Study, records: Sequence[Record]) -> Iterator[Line]:
    """Yield the watched prompts' test scores by the size of the table; the finals are the last point."""
    names = study.splits.prompts
    followed = {names.index(name) for name in watched(names)}
    pooled: dict[tuple[str, int, int], list[RowResult]] = {}
    for record in records:
        if record["phase"] == "growth" and record["status"] == "done":
            key = record["contestant"], record["seed"] or 0, len(record["prompts"])
            pooled.setdefault(key, []).extend(record["examples"])
    drawn = {name for name, _, _ in pooled}
    for name, scores in scored(records, "test").items():
        for record in scores if name in drawn else ():
            rows = [row for row in record["examples"] if row["prompt"] in followed]
            pooled[name, record["seed"] or 0, len(names)] = rows
    most = max(map(len, pooled.values()), default=0)
    for (name, seed, size), rows in sorted(pooled.items()):
        if len(rows) < most:  # one of several tables of that size failed
            continue
        about = {"contestant": name, "seed": seed, "prompts": size, "split": "test"}
        yield {"kind": "table", **about, "value": whole(rows, study.metric)}


def _split(study: Study, split: str, scores: Mapping[str, list[Record]]) -> Iterator[Line]:
    for item in study.candidates:
        for record in scores.get(item.name, ()):
            # a reference has one evaluation, which counts for all seeds
            seed = None if item.is_reference else record["seed"]
            about = {"contestant": item.name, "seed": seed, "split": split}
            metrics, calibration = record["metrics"], record["calibration"]
            yield {"kind": "score", **about, "metrics": metrics, "calibration": calibration}
            values = shares(record["examples"], study.metric)
            for number, (row, value) in enumerate(zip(record["examples"], values, strict=True)):
                known = {key: row[key] for key in ("nll", "label", "target", "confidence", "prompt")}
                yield {"kind": "example", **about, "row": number, "score": value, **known}
    entries = [
        CandidateRows(item.name, [r["examples"] for r in scores[item.name]], item.is_reference)
        for item in study.candidates
        if item.name in scores
    ]
    methods = [entry for entry in entries if not entry.is_reference]
    yield from _means(study, split, methods)
    pairs, standings = decisive(entries, study.metric, study.recipe.compare.margin, split)
    for test in pairs:
        yield {"kind": "test", **test}
    for standing in standings:
        yield {"kind": "standing", **asdict(standing)}


def _means(study: Study, split: str, entries: Sequence[CandidateRows]) -> Iterator[Line]:
    """Yield each method's mean over rows and seeds."""
    # only the first metric is tested, so that the others' intervals may be coarser
    draws = {metric: 10_000 if metric == study.metric else 1_000 for metric in study.splits.metrics}
    by_metric = {metric: summaries(entries, metric, count) for metric, count in draws.items()}
    for entry in entries:
        metrics = {
            metric: {"value": mean.mean, "low": mean.low, "high": mean.high, "n": mean.n_rows}
            for metric, means in by_metric.items()
            if (mean := means.get(entry.name)) is not None
        }
        about = {"contestant": entry.name, "seed": None, "split": split}
        yield {"kind": "score", **about, "metrics": metrics, "calibration": None}


def _measured(record: Record) -> Iterator[Line]:
    name = record["contestant"]
    for line in record.get("control", ()):
        yield {"kind": "control", "contestant": name, **line}
    if (serving := record.get("serving")) is not None:
        yield {"kind": "serving", "contestant": name, **serving}


def _texts(study: Study, records: Sequence[Record]) -> Iterator[Line]:
    """Yield each row once, and every answer to it."""
    for split in study.splits.scored:
        scores = scored(records, split)
        candidates = [item for item in study.candidates if item.name in scores]
        for number, row in enumerate(scores[candidates[0].name][0]["examples"] if candidates else ()):
            about = {"kind": "row", "split": split, "row": number}
            yield {**about, "input": row["input"], "references": row["references"]}
        for item in candidates:
            for record in scores[item.name]:
                seed = None if item.is_reference else record["seed"]
                for number, row in enumerate(record["examples"]):
                    if row["prediction"] is not None:
                        about = {"kind": "answer", "split": split, "row": number}
                        about |= {"contestant": item.name, "seed": seed}
                        yield {**about, "prediction": row["prediction"]}


def _jsonl(folder: Folder, name: str, lines: Sequence[Line]) -> None:
    text = "".join(json.dumps(_finite(line), ensure_ascii=False) + "\n" for line in lines)
    write_text(folder.path / name, text)


def _finite(value: Any) -> Any:
    """Replace numbers that are not finite, which JSON cannot hold, by None."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
