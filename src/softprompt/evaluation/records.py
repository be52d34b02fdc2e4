"""A record is the result of one row, and an evaluation has the metrics of all.

This file does not know how rows are scored (`evaluation.evaluator`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import pairs, view
from .metric_intervals import Score, compute
from .metrics import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True)
class Record:
    """A record is the result of one row."""

    input: str
    prediction: str
    references: tuple[str, ...]
    prompt: int
    nll: float  # of the target, nats
    tokens: int  # of the target
    scores: tuple[float, ...] | None = None  # log-probability of each label or choice
    rewards: tuple[float, float] | None = None  # of a pair: beta times the log-ratio to the reference
    divergence: float | None = None  # from the teacher, nats, summed over the target
    agreed: float | None = None  # tokens of the target at which the teacher's likeliest is the same
    ranks: tuple[int, ...] | None = None  # from 1, of each document that fits the row's query
    query_rows: int = 1  # rows that share its query's weight; 0: another row counts for the query

    @property
    def loss(self) -> float:
        """Return what training minimises: of a pair the loss of DPO, otherwise the target's loss."""
        if self.rewards is None:
            return self.nll
        return pairs.loss(self.rewards)


@dataclass(frozen=True, slots=True, repr=False)
class Evaluation:
    """An evaluation has metrics with 95 % intervals, and the rows behind them."""

    metrics: dict[str, Score]
    records: list[Record] = field(default_factory=list)
    scoring_seconds: float = field(default=0.0, compare=False)  # of scoring the targets, without texts

    @property
    def n(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return view.text(self)

    def _repr_html_(self) -> str:
        return view.html(self)

    def plot(self) -> Axes:
        """Draw the share of each label's rows that were answered right, with its 95 % interval.

        The result is matplotlib's axes (`pip install 'softprompt[plot]'`). With more than 30 labels, those
        with the lowest shares are drawn. Raises SoftPromptError where the rows have no labels.
        """
        return view.plot(self)

    @staticmethod
    def from_json(saved: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that `to_json` saved; it has metrics and intervals, but no rows."""
        bounds, rows = saved.get("intervals", {}), saved.get("rows", {})
        metrics = {}
        for name, value in saved["metrics"].items():
            low, high = bounds.get(name, (value, value))
            metrics[name] = Score(value, low, high, rows.get(name, 0))
        return Evaluation(metrics)

    def to_json(self) -> dict[str, Any]:
        """Return `{"metrics": {name: value}, "intervals": {name: [low, high]}, "rows": {name: n}, "n": n}`.

        `rows` is the number of rows that each metric counted: a text metric may see fewer than `n`.
        """
        return {
            "metrics": {name: score.value for name, score in self.metrics.items()},
            "intervals": {name: [score.low, score.high] for name, score in self.metrics.items()},
            "rows": {name: score.n for name, score in self.metrics.items()},
            "n": self.n,
        }


@dataclass(frozen=True, slots=True)
class DevScore:
    """A dev score has a `key`, of which higher is better, and the number `shown` to people."""

    key: tuple[float, ...]
    name: str
    shown: float
    metrics: Mapping[str, float] = field(default_factory=dict, compare=False)  # all that were measured


def score(names: Sequence[str], records: Sequence[Record]) -> dict[str, Score]:
    """Compute metrics with intervals over records; an empty dictionary for no names."""
    if not names:
        return {}
    teacher = from_teacher(records)
    return compute(
        names,
        [r.prediction for r in records],
        [r.references for r in records],
        nll=[r.nll for r in records],
        tokens=[r.tokens for r in records],
        rewards=[r.rewards for r in records if r.rewards is not None] or None,
        divergence=teacher.get("divergence"),
        agreed=teacher.get("agreed"),
        ranks=[r.ranks for r in records if r.ranks is not None] or None,
        query_rows=[r.query_rows for r in records if r.ranks is not None] or None,
    )


def from_teacher(records: Sequence[Record]) -> dict[str, list[float]]:
    """Return what metrics of a teacher read; nothing where a record has none."""
    known = [(r.divergence, r.agreed) for r in records if r.divergence is not None and r.agreed is not None]
    if not known or len(known) < len(records):
        return {}
    return {"divergence": [d for d, _ in known], "agreed": [same for _, same in known]}


def dev_key(evaluation: Evaluation) -> DevScore:
    """Return the first metric; the mean loss of the dev rows breaks ties, as accuracy moves in steps."""
    name, score = next(iter(evaluation.metrics.items()))
    records = evaluation.records
    counts = (1 if r.rewards else r.tokens for r in records)
    log_loss = sum(r.loss for r in records) / max(1, sum(counts))
    value = score.value if METRICS[name].higher_is_better else -score.value
    values = {name: score.value for name, score in evaluation.metrics.items()}
    return DevScore((value, -log_loss), name, score.value, values)
