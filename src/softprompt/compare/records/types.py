"""The types of the records that trials write (`trials/ID.json`).

Every record has the keys of `Record` that are required; which of the others it has depends on its phase
(`softprompt.compare.records.phase`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict
from typing_extensions import NotRequired, Required, TypedDict


class About(TypedDict, total=False):
    """The facts that a trial needs beyond its recipe. The keys depend on its phase."""

    split: str  # rows that are scored
    train: str  # rows that are trained on, if not "train"
    final: str  # id of the final trial whose prompt is scored or measured
    reference: str  # name of a reference
    shots: int
    text_rows: int | None
    prompts: list[str]  # of a table
    watched: list[str]  # those of them that are scored
    control: list[str]  # measures
    serving: bool
    rows: int
    constraint: dict[str, Any] | None


#: Why a trial failed. With `again` it runs again at the next call.
TrialError = TypedDict(  # noqa: UP013  (no class has a field called `what`)
    "TrialError",
    {
        "what": str,
        "why": str,
        "fix": str,
        "again": NotRequired[bool],
        "traceback": NotRequired[list[str]],
    },
)


class RowResult(TypedDict):
    """The answer that one row got. `label` and `target` are numbers of labels or choices."""

    input: str
    references: list[str]
    prediction: str | None  # None: no text was generated
    nll: float | None  # nats of the target
    tokens: int  # of the target
    prompt: int
    label: int | None  # the predicted one
    target: int | None
    confidence: float | None
    rewards: NotRequired[list[float]]  # of a preference row: of the chosen answer, of the rejected one
    ranks: NotRequired[list[int]]  # of an embedding row: of each document that fits its query
    query_rows: NotRequired[int]  # rows that share its query's weight; 0: another row counts for the query


class DevRow(TypedDict):
    """The scores that a search keeps of one dev row, without its input."""

    references: list[str]
    prediction: str
    nll: float | None  # nats of the target
    tokens: int  # of the target
    rewards: NotRequired[list[float]]
    ranks: NotRequired[list[int]]
    query_rows: NotRequired[int]


class Cost(TypedDict, total=False):
    """The costs of a training. The last six are known only for finals."""

    train_seconds: float
    trained_parameters: int
    artifact_bytes: int
    cache_bytes: int
    flops: float
    flops_once: float  # of the cached inputs
    added_tokens: float
    prefix_columns: float
    peak_memory_bytes: int | None
    cache_seconds: float


class Result(TypedDict, total=False):
    """The keys that a phase writes."""

    status: Required[str]  # done, pruned, failed
    error: Required[TrialError | None]
    dev: dict[str, float | None]  # metrics
    dev_key: list[float | None]  # what trials are ranked by
    dev_rows: list[DevRow]  # of a search, under the best state; absent where it was trained by a killed call
    best_step: int
    steps: int
    # one entry an evaluation: step, scores by metric, and the seconds of all steps until then
    history: list[dict[str, Any]]
    step_seconds: float | None  # of all steps; a share of those that trials took side by side
    seconds: float
    plan: str
    cost: Cost
    metrics: dict[str, dict[str, Any]]
    calibration: dict[str, Any] | None
    examples: list[RowResult]
    prompts: list[str]
    shared: int  # tensors that an added prompt takes from the final
    control: list[dict[str, Any]]
    serving: dict[str, Any] | None
    refused: dict[str, dict[str, str]]  # measures that do not apply, with the reason
    cut: bool  # stopped for want of time
    cut_within: float  # the time of the comparison that stopped it


class Record(Result, total=False):
    """A trial as it is kept: its name, its settings and its result."""

    __pydantic_config__ = ConfigDict(strict=True)  # type: ignore[misc]

    id: Required[str]
    contestant: Required[str]
    phase: Required[str]
    settings: Required[dict[str, Any]]
    seed: Required[int | None]
    rows: Required[int | None]
    about: Required[About]
    ended: str


def scored(records: Iterable[Record], split: str) -> dict[str, list[Record]]:
    """Return the scores of a split by candidate, each candidate's by seed."""
    scores: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record["seed"] or 0):
        # growth scores a few prompts alone, and so is no score of a split
        is_score = record["status"] == "done" and record["phase"] in ("score", "newcomer")
        if is_score and record["about"]["split"] == split:
            scores.setdefault(record["contestant"], []).append(record)
    return scores
