"""The figures of a distillation say how much of the text's effect is left, and what is saved."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..config.schema import Recipe
from ..evaluation.evaluator import evaluator_of
from ..evaluation.metrics import METRICS
from ..evaluation.records import Evaluation, Record
from ..training.run import Run
from . import intervals
from .answers import Answer
from .first_token import seconds_to_first_token
from .seeds import seed_of
from .ways import CUT, NONE, SUMMARY, TEXT, VECTORS, Way, ways_of

MEASURES = ("kl", "agreement", "chrf", "exact_match")
TESTED = ("kl", "chrf")
TASK_METRICS = ("exact_match", "chrf")  # against right answers, where the task names none of texts
SHOWN = 3  # requests that are answered side by side
MILLION = 10**6


@dataclass(frozen=True)
class Figures:
    """The figures of the requests that were kept apart (test rows), and the costs.

    A table has, for each way to answer, `metrics`, `intervals` (95 %), `rows` and `n`; metrics of the vectors
    are means over `seeds`. The first of `seeds` is the one whose vectors are kept.
    """

    ways: dict[str, dict[str, Any]]  # against the teacher
    share: tuple[float, float, float]  # of the text's effect that the vectors keep, with its 95 % interval
    shares: dict[str, float]  # of each seed
    tests: list[dict[str, Any]]  # the vectors against the other ways of as few tokens
    parts: dict[str, dict[str, dict[str, Any]]]  # a table for each part that rows name
    references: dict[str, dict[str, Any]]  # against the right answers, of rows that have one
    seeds: tuple[int, ...]
    text_tokens: int  # a request carries them with the text, and not with the vectors
    soft_tokens: int  # columns of the vectors
    texts: dict[str, str]  # the cut text and the summary
    first_token: dict[str, float]  # median seconds
    seconds: float  # that the distillation took, all seeds together
    start_seconds: float  # that the start of one seed's vectors took, measured in this call
    answered: tuple[int, int]  # complete answers of the teacher, of all
    samples: list[dict[str, str]]
    history: dict[str, list[dict[str, Any]]]  # of each seed: step, loss and dev score
    leakage: dict[str, Any] | None = None  # the change on unrelated text, before and after training
    price_hour: float | None = None  # what an hour of this machine costs, in the user's currency

    @property
    def headline(self) -> str:
        """Say how much of the text's effect the vectors keep."""
        share, low, high = (100 * value for value in self.share)
        n, seeds = self.ways[VECTORS]["n"], len(self.seeds)
        over = f", mean of {seeds} seeds" if seeds > 1 else ", one seed"
        return (
            f"the vectors keep {share:.0f} % of the text's effect [{low:.0f}, {high:.0f}] "
            f"on {n} requests that were kept apart{over}"
        )

    @property
    def saved_seconds(self) -> float:
        """Return the seconds that a request's first token comes sooner."""
        return self.first_token[TEXT] - self.first_token[VECTORS]

    @property
    def paid_after(self) -> float | None:
        """Return the number of requests after which the tuning has paid for itself; None if never."""
        return self.seconds / self.saved_seconds if self.saved_seconds > 0 else None

    @property
    def million(self) -> dict[str, dict[str, float]]:
        """Return what a million requests cost up to their first token: seconds, and money with a price."""
        costs = {name: {"seconds": MILLION * each} for name, each in self.first_token.items()}
        if self.price_hour is not None:
            for cost in costs.values():
                cost["price"] = cost["seconds"] / 3600 * self.price_hour
        return costs

    def to_json(self) -> dict[str, Any]:
        """Return all figures as plain values."""
        more = {"paid_after_requests": self.paid_after, "million_requests": self.million}
        if self.price_hour is not None:
            more["price"] = self.seconds / 3600 * self.price_hour
        return {**asdict(self), **more}


def measure(
    runs: Sequence[Run],
    rows: Sequence[Answer],
    folder: Path,
    *,
    seconds: float,
    answered: tuple[int, int],
    leakage: dict[str, Any] | None = None,
    price_hour: float | None = None,
) -> Figures:
    """Score every way to answer `rows`, against the answers and distributions of the full text.

    `runs` are those of the seeds, the one whose vectors are kept first. The summary is kept in `folder`.
    """
    prepared = runs[0].prepared
    lm, recipe = prepared.lm, prepared.recipe
    every = ways_of(runs, rows, folder)
    evaluator = replace(evaluator_of(recipe, lm, prepared.encoder), metrics=MEASURES)
    records = {
        name: [evaluator.run(method, way.examples).records for method in way.methods]
        for name, way in every.ways.items()
    }
    compared = {name: records[name] for name in (VECTORS, CUT, SUMMARY, NONE) if name in records}
    return Figures(
        ways=intervals.table(records, MEASURES),
        share=intervals.share_kept(records[VECTORS], records[NONE][0]),
        shares={
            str(seed_of(run)): intervals.share_kept([of_seed], records[NONE][0])[0]
            for run, of_seed in zip(runs, records[VECTORS], strict=True)
        },
        tests=intervals.tests(compared, VECTORS, TESTED),
        parts=_by_part(records, rows),
        references=_against_references(recipe, records, rows),
        seeds=tuple(seed_of(run) for run in runs),
        text_tokens=round(_mean_tokens(every.ways[TEXT]) - _mean_tokens(every.ways[NONE])),
        soft_tokens=every.soft_tokens,
        texts={name: text for name, text in every.texts.items() if name in every.ways},
        first_token={
            name: seconds_to_first_token(lm, every.ways[name].methods[0], every.ways[name].examples)
            for name in (TEXT, VECTORS, NONE)
        },
        seconds=seconds,
        start_seconds=prepared.start_seconds,
        answered=answered,
        samples=_samples(records, rows),
        history={str(seed_of(run)): run.outcome.history for run in runs},
        leakage=leakage,
        price_hour=price_hour,
    )


def share_kept(vectors: Evaluation | Sequence[Evaluation], none: Evaluation) -> tuple[float, float, float]:
    """Return the share of the text's effect that the vectors keep, and its 95 % interval.

    `vectors` are the evaluations of all seeds, or the only one.
    """
    seeds = [vectors] if isinstance(vectors, Evaluation) else vectors
    return intervals.share_kept([evaluation.records for evaluation in seeds], none.records)


def _by_part(
    records: Mapping[str, intervals.Seeds], rows: Sequence[Answer]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return a table for each part that the rows name; nothing where they name none."""
    named: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if row.get("part"):
            named.setdefault(str(row["part"]), []).append(i)
    return {
        part: intervals.table(
            {name: [[of_seed[i] for i in chosen] for of_seed in seeds] for name, seeds in records.items()},
            MEASURES,
        )
        for part, chosen in sorted(named.items())
    }


def _against_references(
    recipe: Recipe, records: Mapping[str, intervals.Seeds], rows: Sequence[Answer]
) -> dict[str, dict[str, Any]]:
    """Return the table of the task's metrics against the right answers; nothing where no row has one."""
    known = [i for i, row in enumerate(rows) if row.get("reference")]
    if not known:
        return {}
    metrics = [m for m in recipe.task.metrics or () if METRICS[m].needs == "prediction"] or TASK_METRICS

    def against(i: int, record: Record) -> Record:
        right = rows[i]["reference"]
        return replace(record, references=tuple(right) if isinstance(right, list) else (str(right),))

    right = {
        name: [[against(i, of_seed[i]) for i in known] for of_seed in seeds]
        for name, seeds in records.items()
    }
    return intervals.table(right, metrics)


def _samples(records: Mapping[str, intervals.Seeds], rows: Sequence[Answer]) -> list[dict[str, str]]:
    return [
        {
            "request": str(row["request"]),
            **{name: records[name][0][i].prediction for name in (TEXT, VECTORS, NONE)},
        }
        for i, row in enumerate(rows[:SHOWN])
    ]


def _mean_tokens(way: Way) -> float:
    return statistics.mean(len(e.input_ids) for e in way.examples)
