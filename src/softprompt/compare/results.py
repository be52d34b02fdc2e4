"""`study.json`, `results.jsonl` and `examples.jsonl`: what `softprompt.compare.report` and others read.

They are made of the trials' records and can be made again at any time. `results.jsonl` holds no text of any
row, so that it may be shared where the rows may not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from .._system.files import write_text
from . import diagnose
from .candidates import Candidate
from .manifest import Line, Study
from .measures.quality import CandidateRows, shares, summaries, tests, whole
from .phases.prompt_counts import watched
from .store import Folder, Record


def write(study: Study, records: Sequence[Record]) -> None:
    """Both files, whole."""
    findings = [{"kind": "finding", **one} for one in diagnose.findings(study, records)]
    lines = [study.about, *_lines(study, records), *findings]
    _jsonl(study.folder, "results.jsonl", lines)
    _jsonl(study.folder, "examples.jsonl", list(_texts(study, records)))


def scored(study: Study, records: Sequence[Record], split: str) -> list[tuple[Candidate, list[Record]]]:
    """Each contestant's records of a split, by seed."""
    found = []
    for one in study.who:
        own = [
            r
            for r in records
            if r["contestant"] == one.name
            and r["phase"] in ("score", "newcomer")
            and r["status"] == "done"
            and r["about"]["split"] == split
        ]
        found.append((one, sorted(own, key=lambda r: r["seed"])))
    return found


def _lines(study: Study, records: Sequence[Record]) -> Iterator[Line]:
    for record in records:
        if record["phase"] not in ("score", "measure") or record["status"] == "failed":
            yield _trial(study, record)
    yield from _curves(study, records)
    yield from _tables(study, records)
    for split in study.ground.scored:
        yield from _split(study, split, scored(study, records, split))
    for record in records:
        if record["phase"] == "measure" and record["status"] == "done":
            yield from _measured(record)


def _trial(study: Study, record: Record) -> Line:
    dev = record.get("dev") or {}
    if record["phase"] == "reference" and record["status"] == "done":
        dev = {name: score["value"] for name, score in record["metrics"].items()}
    cost = dict(record.get("cost") or {})
    if cost.get("artifact_bytes") is not None:
        cost["artifact_bytes_per_prompt"] = cost["artifact_bytes"] / len(study.ground.prompts)
    error = record["error"]
    if error is not None:
        error = {key: error.get(key) or "" for key in ("what", "why", "fix")}
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
    """Dev scores by the number of training rows; the finals are the last point."""
    drawn = {r["contestant"] for r in records if r["phase"] == "curve" and r["status"] == "done"}
    for record in records:
        ends = record["phase"] in ("curve", "final") and record["status"] == "done"
        if ends and record["contestant"] in drawn:
            value = record["dev"].get(study.metric)
            about = {key: record[key] for key in ("contestant", "seed", "rows")}
            yield {"kind": "curve", **about, "value": value, "split": "dev"}


def _tables(study: Study, records: Sequence[Record]) -> Iterator[Line]:
    """The watched prompts' test scores by the size of the table; the finals' are the last point."""
    names = study.ground.prompts
    followed = {names.index(name) for name in watched(names)}
    pooled: dict[tuple[str, int, int], list[Any]] = {}
    for record in records:
        if record["phase"] == "growth" and record["status"] == "done":
            key = record["contestant"], record["seed"], len(record["prompts"])
            pooled.setdefault(key, []).extend(record["examples"])
    drawn = {name for name, _, _ in pooled}
    for one, found in scored(study, records, "test"):
        for record in found if one.name in drawn else ():
            rows = [row for row in record["examples"] if row["prompt"] in followed]
            pooled[one.name, record["seed"], len(names)] = rows
    most = max(map(len, pooled.values()), default=0)
    for (name, seed, size), rows in sorted(pooled.items()):
        if len(rows) < most:  # one of several tables of that size failed
            continue
        about = {"contestant": name, "seed": seed, "prompts": size, "split": "test"}
        yield {"kind": "table", **about, "value": whole(rows, study.metric)}


def _split(study: Study, split: str, found: Sequence[tuple[Candidate, list[Record]]]) -> Iterator[Line]:
    for one, records in found:
        for record in records:
            # of a reference there is one evaluation, which stands for all seeds
            seed = None if one.is_reference else record["seed"]
            about = {"contestant": one.name, "seed": seed, "split": split}
            metrics, calibration = record["metrics"], record["calibration"]
            yield {"kind": "score", **about, "metrics": metrics, "calibration": calibration}
            values = shares(record["examples"], study.metric)
            for number, (row, value) in enumerate(zip(record["examples"], values, strict=True)):
                known = {key: row[key] for key in ("nll", "label", "target", "confidence", "prompt")}
                yield {"kind": "example", **about, "row": number, "score": value, **known}
    entries = [
        CandidateRows(one.name, [r["examples"] for r in rows], one.is_reference) for one, rows in found
    ]
    entries = [entry for entry in entries if entry.seeds]
    yield from _means(study, split, [entry for entry in entries if not entry.is_reference])
    for test in tests(entries, study.metric):
        yield {"kind": "test", "split": split, "metric": study.metric, **asdict(test)}


def _means(study: Study, split: str, entries: Sequence[CandidateRows]) -> Iterator[Line]:
    """Each method over rows and seeds."""
    # only the first metric is tested, so that the others' intervals may be coarser
    draws = {metric: 10_000 if metric == study.metric else 1_000 for metric in study.ground.metrics}
    of = {metric: summaries(entries, metric, count) for metric, count in draws.items()}
    for entry in entries:
        metrics = {
            metric: {"value": one.mean, "low": one.low, "high": one.high, "n": one.n_rows}
            for metric, all_of in of.items()
            if (one := all_of.get(entry.name)) is not None
        }
        about = {"contestant": entry.name, "seed": None, "split": split}
        yield {"kind": "score", **about, "metrics": metrics, "calibration": None}


def _measured(record: Record) -> Iterator[Line]:
    name = record["contestant"]
    for one in record["control"]:
        yield {"kind": "control", "contestant": name, **one}
    if record["serving"] is not None:
        yield {"kind": "serving", "contestant": name, **record["serving"]}


def _texts(study: Study, records: Sequence[Record]) -> Iterator[Line]:
    """Rows once, and every answer to them."""
    for split in study.ground.scored:
        found = scored(study, records, split)
        first = next((rows[0] for _, rows in found if rows), None)
        for number, row in enumerate(first["examples"] if first else ()):
            about = {"kind": "row", "split": split, "row": number}
            yield {**about, "input": row["input"], "references": row["references"]}
        for one, rows in found:
            for record in rows:
                seed = None if one.is_reference else record["seed"]
                for number, row in enumerate(record["examples"]):
                    if row["prediction"] is not None:
                        about = {"kind": "answer", "split": split, "row": number}
                        about |= {"contestant": one.name, "seed": seed}
                        yield {**about, "prediction": row["prediction"]}


def _jsonl(folder: Folder, name: str, lines: Sequence[Line]) -> None:
    text = "".join(json.dumps(_finite(line), ensure_ascii=False) + "\n" for line in lines)
    write_text(folder.path / name, text)


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
