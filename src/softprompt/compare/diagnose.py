"""Findings on a comparison: those of `evaluation.diagnostics`, each method's first final and on the rows."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..build import template_of
from ..data.sources import read_rows
from ..evaluation.diagnostics import FINDINGS, Finding, Run, examine
from ..evaluation.diagnostics.baselines import tfidf_baseline
from ..evaluation.metrics import METRICS
from .measures.quality import CandidateRows, scores_of
from .store import Record

if TYPE_CHECKING:
    from .candidates import Candidate
    from .manifest import Study

OF_ROWS = (  # the same for every method
    "train and test overlap",
    "dev and test apart",
    "targets truncated",
    "one answer to all",
    "unseen and train overlap",
    "the same inputs again",
)
OF_ALL = ("within seed noise",)
BASELINE = "TF-IDF with logistic regression"


@dataclass(frozen=True)
class Shown:
    """A row as its template renders it, where an encoded one is asked for."""

    rendered: Any
    target_ids: tuple[int, ...] = ()
    truncated: int = 0


@dataclass(frozen=True)
class PlainAnswer:
    """One row's answer."""

    prediction: str
    references: tuple[str, ...]


def findings(study: Study, records: Sequence[Record]) -> list[dict[str, Any]]:
    """As lines of `results.jsonl`, warnings first."""
    found = [*_of_rows(study), *_of_all(study, records)]
    words = _words(study, records)
    for one in study.who:
        if not one.is_reference:
            found += [(finding, one.name) for finding in _of_method(study, records, one, words)]
    found.sort(key=lambda pair: pair[0].level != "warning")
    return [
        {
            "level": finding.level,
            "contestant": name,
            "what": finding.what,
            "evidence": finding.evidence,
            "command": finding.command or None,
            "splits": list(finding.splits),
        }
        for finding, name in found
    ]


def _of_rows(study: Study) -> Iterator[tuple[Finding, None]]:
    """What the rows show, whoever learns them."""
    splits = ("train", "dev", "test", "unseen")
    parts = {split: _shown(study, split) for split in splits if study.ground.counts.get(split)}
    train, dev, test, unseen = (parts.get(split, ()) for split in splits)
    settings = {"recipe": study.recipe.to_dict()}
    run = Run(settings, _named(study), train=train, dev=dev, test=test, unseen=unseen)
    for name in OF_ROWS:
        if (finding := FINDINGS[name](run)) is not None:
            yield finding, None


def _shown(study: Study, split: str) -> list[Shown]:
    """The rows of a split, with what is known of their tokens."""
    template = template_of(study.recipe)
    rows = read_rows(study.folder.rows(split), split=split)
    known = study.ground.targets.get(split) or [(0, 0)] * len(rows)
    return [
        Shown(template.render(row), (0,) * count, cut) for row, (count, cut) in zip(rows, known, strict=True)
    ]


def _of_all(study: Study, records: Sequence[Record]) -> Iterator[tuple[Finding, None]]:
    """What the seeds show."""
    seeds: dict[str, list[float]] = {}
    for record in records:
        ends = record["phase"] == "score" and record["status"] == "done"
        if ends and record["about"]["split"] == "test" and "final" in record["about"]:
            score = record["metrics"].get(study.metric)
            if score is not None:
                seeds.setdefault(record["contestant"], []).append(score["value"])
    run = Run(recipe=_named(study), seeds=seeds, higher_is_better=METRICS[study.metric].higher_is_better)
    for name in OF_ALL:
        if (finding := FINDINGS[name](run)) is not None:
            yield finding, None


def _words(study: Study, records: Sequence[Record]) -> dict[str, list[float]]:
    """What TF-IDF scores on the test rows of a classification, where it is not a contestant anyway."""
    asked = any(one.name == "tf-idf" for one in study.who)
    if asked or study.metric != "accuracy" or study.recipe.task.kind != "classification":
        return {}
    return {BASELINE: tfidf_baseline(_shown(study, "train"), _shown(study, "test")).scores}


def _of_method(
    study: Study, records: Sequence[Record], one: Candidate, words: dict[str, list[float]]
) -> list[Finding]:
    """What its first final shows, beside its search and the references."""
    score = _test(records, one.name)
    if score is None:
        return []
    manifest = study.folder.artifact(score["about"]["final"]) / "softprompt.json"
    rows = [row for row in score["examples"] if row["prediction"] is not None]
    sign = 1 if METRICS[study.metric].higher_is_better else -1
    run = Run(
        json.loads(manifest.read_text(encoding="utf-8")),
        _as_tuned(study, one),
        records=[PlainAnswer(row["prediction"], tuple(row["references"])) for row in rows],
        scores=_row_scores(study, score),
        baselines={
            other.name: _row_scores(study, its)
            for other in study.who
            if other.is_reference and (its := _test(records, other.name)) is not None
        }
        | words,
        used=[row["input"] for row in score["examples"]],
        searched=[
            (record["settings"][one.rate], _searched(record, study.metric, sign))
            for record in records
            if record["contestant"] == one.name and record["phase"] == "search"
        ],
        test_scores=_evaluation(score),
    )
    return [replace(finding, command=_of_its_rate(finding.command, one.rate)) for finding in examine(run)]


def _of_its_rate(command: str, rate: str) -> str:
    """The command with the learning rate by the name that it has for this method."""
    return command.replace("--over lr=", f"--over {rate}=").replace(" train.lr=", f" {rate}=")


def _searched(record: Record, metric: str, sign: int) -> float:
    """What a trial of the search scored; one that lay behind or failed was tried, and was not the best."""
    score = record["dev"].get(metric) if record["status"] == "done" else None
    return -math.inf if score is None else sign * score


def _as_tuned(study: Study, one: Candidate) -> str:
    """The recipe with what makes it this contestant's, as a command line has it."""
    own, asked = study.recipe, one.recipe
    words = [f"method={asked.method.name}"]
    before = own.method.options() if asked.method.name == own.method.name else {}
    for key, value in asked.method.options().items():
        if before.get(key) != value:
            words.append(f"method.{key}={value if isinstance(value, str) else json.dumps(value)}")
    if asked.base.mode != own.base.mode:
        words.append(f"base={asked.base.mode}")
    return " ".join([_named(study), *map(shlex.quote, words)])


def _named(study: Study) -> str:
    return shlex.quote(study.source) if study.source else "RECIPE"


def _test(records: Sequence[Record], name: str) -> Record | None:
    own = [
        r
        for r in records
        if r["contestant"] == name
        and r["phase"] == "score"
        and r["status"] == "done"
        and r["about"]["split"] == "test"
    ]
    return min(own, key=lambda r: r["seed"], default=None)


def _row_scores(study: Study, score: Record) -> list[float]:
    """Each row's share of the metric, higher is better: their mean is the metric of all rows.

    A row's own metric will not do: the mean of perplexities is that of the few worst rows.
    """
    found = scores_of(CandidateRows("", [score["examples"]]), study.metric)
    sign = 1 if METRICS[study.metric].higher_is_better else -1
    return [] if found is None else (sign * found.values[0]).tolist()


def _evaluation(score: Record) -> dict[str, Any]:
    """As `Evaluation.to_json` has it."""
    metrics = score["metrics"]
    return {
        "metrics": {name: one["value"] for name, one in metrics.items()},
        "intervals": {name: [one["low"], one["high"]] for name, one in metrics.items()},
        "rows": {name: one["n"] for name, one in metrics.items()},
        "n": len(score["examples"]),
    }
