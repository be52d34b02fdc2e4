"""The rows of a comparison and each method's first final are examined by `evaluation.diagnostics`."""

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
from .records.types import Record, scored

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
class RenderedRow:
    """A row as its template renders it, in place of an encoded one."""

    rendered: Any
    target_ids: tuple[int, ...] = ()
    truncated: int = 0


@dataclass(frozen=True)
class PlainAnswer:
    """An answer that a prompt gave to a row, with the row's references."""

    prediction: str
    references: tuple[str, ...]


def findings(study: Study, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the findings as lines of `results.jsonl`, warnings first."""
    results = [*_of_rows(study), *_of_all(study, records)]
    words = _words(study, records)
    for candidate in study.candidates:
        if not candidate.is_reference:
            of_method = _of_method(study, records, candidate, words)
            results += [(finding, candidate.name) for finding in of_method]
    results.sort(key=lambda pair: pair[0].level != "warning")
    return [
        {
            "level": finding.level,
            "contestant": name,
            "what": finding.summary,
            "evidence": finding.evidence,
            "command": finding.command or None,
            "splits": list(finding.splits),
        }
        for finding, name in results
    ]


def _of_rows(study: Study) -> Iterator[tuple[Finding, None]]:
    """Yield what the rows show, which is the same for every method."""
    splits = ("train", "dev", "test", "unseen")
    parts = {split: _rendered(study, split) for split in splits if study.splits.counts.get(split)}
    train, dev, test, unseen = (parts.get(split, ()) for split in splits)
    settings = {"recipe": study.recipe.to_dict()}
    run = Run(settings, _named(study), train=train, dev=dev, test=test, unseen=unseen)
    for name in OF_ROWS:
        if (finding := FINDINGS[name](run)) is not None:
            yield finding, None


def _rendered(study: Study, split: str) -> list[RenderedRow]:
    """Return the rows of a split, with what is known of their tokens."""
    template = template_of(study.recipe)
    rows = read_rows(study.folder.rows(split), split=split)
    known = study.splits.targets.get(split) or [(0, 0)] * len(rows)
    return [
        RenderedRow(template.render(row), (0,) * count, cut)
        for row, (count, cut) in zip(rows, known, strict=True)
    ]


def _of_all(study: Study, records: Sequence[Record]) -> Iterator[tuple[Finding, None]]:
    """Yield what the seeds show."""
    seeds: dict[str, list[float]] = {}
    tests = scored(records, "test")
    for item in study.candidates:
        values = [r["metrics"].get(study.metric) for r in tests.get(item.name, ())]
        if not item.is_reference and (known := [value["value"] for value in values if value is not None]):
            seeds[item.name] = known
    run = Run(recipe=_named(study), seeds=seeds, higher_is_better=METRICS[study.metric].higher_is_better)
    for name in OF_ALL:
        if (finding := FINDINGS[name](run)) is not None:
            yield finding, None


def _words(study: Study, records: Sequence[Record]) -> dict[str, list[float]]:
    """Return the scores of TF-IDF on the test rows of a classification, unless it is a candidate."""
    is_candidate = any(item.name == "tf-idf" for item in study.candidates)
    if is_candidate or study.metric != "accuracy" or study.recipe.task.kind != "classification":
        return {}
    return {BASELINE: tfidf_baseline(_rendered(study, "train"), _rendered(study, "test")).scores}


def _of_method(
    study: Study, records: Sequence[Record], candidate: Candidate, words: dict[str, list[float]]
) -> list[Finding]:
    """Return what its first final shows, beside its search and the references."""
    tests = {name: scores[0] for name, scores in scored(records, "test").items()}
    if candidate.name not in tests:
        return []
    score = tests[candidate.name]
    manifest = study.folder.artifact(score["about"]["final"]) / "softprompt.json"
    rows = score["examples"]
    sign = 1 if METRICS[study.metric].higher_is_better else -1
    run = Run(
        json.loads(manifest.read_text(encoding="utf-8")),
        _as_tuned(study, candidate),
        records=[
            PlainAnswer(row["prediction"], tuple(row["references"]))
            for row in rows
            if row["prediction"] is not None
        ],
        scores=_row_scores(study, score),
        baselines={
            item.name: _row_scores(study, tests[item.name])
            for item in study.candidates
            if item.is_reference and item.name in tests
        }
        | words,
        used=[row["input"] for row in rows],
        searched=[
            (record["settings"][candidate.rate], _searched(record, study.metric, sign))
            for record in records
            if record["contestant"] == candidate.name and record["phase"] == "search"
        ],
        test_scores=_evaluation(score),
    )
    return [
        replace(finding, command=_of_its_rate(finding.command, candidate.rate)) for finding in examine(run)
    ]


def _of_its_rate(command: str, rate: str) -> str:
    """Write the learning rate in a command by the name that it has for this method."""
    return command.replace("--over lr=", f"--over {rate}=").replace(" train.lr=", f" {rate}=")


def _searched(record: Record, metric: str, sign: int) -> float:
    """Return the score of a search trial; one that was pruned or failed was tried, and was not the best."""
    score = record["dev"].get(metric) if record["status"] == "done" else None
    return -math.inf if score is None else sign * score


def _as_tuned(study: Study, candidate: Candidate) -> str:
    """Return the recipe and the overrides that make it this candidate's, as a command line has them."""
    recipe, changed = study.recipe, candidate.recipe
    words = [f"method={changed.method.name}"]
    before = recipe.method.options() if changed.method.name == recipe.method.name else {}
    for key, value in changed.method.options().items():
        if before.get(key) != value:
            words.append(f"method.{key}={value if isinstance(value, str) else json.dumps(value)}")
    if changed.base.mode != recipe.base.mode:
        words.append(f"base={changed.base.mode}")
    return " ".join([_named(study), *map(shlex.quote, words)])


def _named(study: Study) -> str:
    return shlex.quote(study.source) if study.source else "RECIPE"


def _row_scores(study: Study, score: Record) -> list[float]:
    """Return each row's share of the metric, higher is better; their mean is the metric of all rows.

    The metric of a single row will not do: the mean of perplexities is that of the few worst rows.
    """
    scores = scores_of(CandidateRows("", [score["examples"]]), study.metric)
    sign = 1 if METRICS[study.metric].higher_is_better else -1
    return [] if scores is None else (sign * scores.values[0]).tolist()


def _evaluation(score: Record) -> dict[str, Any]:
    """Return a score as `Evaluation.to_json` writes it."""
    metrics = score["metrics"]
    return {
        "metrics": {name: item["value"] for name, item in metrics.items()},
        "intervals": {name: [item["low"], item["high"]] for name, item in metrics.items()},
        "rows": {name: item["n"] for name, item in metrics.items()},
        "n": len(score["examples"]),
    }
