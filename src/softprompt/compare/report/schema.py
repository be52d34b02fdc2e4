"""The dataclasses of a comparison's files are defined here, one for each kind of line.

Metrics are in their own numbers, as `evaluation.metrics` gives them; None is what was not measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The newest version of these files that is understood here.
VERSION = 1
#: Methods whose difference is within so many hundredths of the metric's range are equal (`compare.margin`).
MARGIN = 2.0


@dataclass(frozen=True)
class Contestant:
    """A method with its options, or a reference that trains nothing of the model (zero-shot, tf-idf …)."""

    name: str
    method: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    base: str = "frozen"
    is_reference: bool = False


@dataclass(frozen=True)
class Study:
    """The study says what was compared, and on which rows and model."""

    metric: str
    contestants: list[Contestant]
    name: str = ""
    model: str = ""
    dtype: str = ""
    weights: str = "auto"  # form of the frozen ones: `train.weights`
    task: str = ""
    higher_is_better: bool = True
    directions: dict[str, bool] = field(default_factory=dict)  # of each metric: is higher better?
    seeds: list[int] = field(default_factory=list)
    budget: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Any] = field(default_factory=dict)
    labels: list[str] | None = None
    prompts: list[str] | None = None
    unseen: dict[str, Any] | None = None
    newcomers: dict[str, Any] | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    command: str = ""
    started: str | None = None
    seconds: float | None = None
    hashes: dict[str, Any] = field(default_factory=dict)
    margin: float = MARGIN
    version: int = VERSION


@dataclass(frozen=True)
class Trial:
    """A trial is one run: a learning rate tried, a seed of the final setting, a point of a curve."""

    id: str
    contestant: str
    phase: str
    status: str
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    rows: int | None = None
    error: dict[str, str] | None = None
    dev: dict[str, float | None] = field(default_factory=dict)
    best_step: int | None = None
    steps: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)  # dev scores along the way
    cost: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """A contestant's metrics on a split; `seed` None means over all seeds."""

    contestant: str
    split: str
    metrics: dict[str, dict[str, float | None]]
    seed: int | None = None
    calibration: dict[str, Any] | None = None


@dataclass(frozen=True)
class Example:
    """One row's score under one contestant and seed."""

    contestant: str
    split: str
    row: int
    score: float | None
    seed: int | None = None
    nll: float | None = None
    label: int | None = None
    target: int | None = None
    confidence: float | None = None
    prompt: int | None = None


@dataclass(frozen=True)
class Point:
    """A point is the quality with so many training rows (a learning curve) or so many prompts (a table)."""

    contestant: str
    value: float | None
    rows: int | None = None
    prompts: int | None = None
    seed: int | None = None
    split: str = "dev"


@dataclass(frozen=True)
class Spent:
    """These are the seconds of a method's search and finals: planned, and measured (`seconds`)."""

    contestant: str
    budget_seconds: float
    planned_seconds: float
    steps: int
    seconds: float | None = None
    search_seconds: float | None = None
    final_seconds: float | None = None
    cache_seconds: float | None = None
    failed: int = 0  # trials
    ended_early: int = 0


@dataclass(frozen=True)
class Serving:
    """These are the costs of a tuned prompt in use."""

    contestant: str
    time_to_first_token_ms: float | None = None
    tokens_per_second: float | None = None
    mixed_tokens_per_second: float | None = None
    plain_time_to_first_token_ms: float | None = None
    plain_tokens_per_second: float | None = None
    added_tokens: float | None = None


@dataclass(frozen=True)
class Control:
    """One measure of whether the prompt decides the output."""

    contestant: str
    measure: str
    value: float | None
    low: float | None = None
    high: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PairTest:
    """`difference` is a − b in the metric's own numbers, with its interval.

    The interval agrees with the corrected test, and `level` is its own confidence. Files written before have
    no level: theirs is the 95 % interval of the pair alone, not corrected. `shows_any` is False where no
    difference that the metric can have would have been shown. `chance` is the probability that a is better
    than b over resampled rows and seeds.
    """

    split: str
    metric: str
    a: str
    b: str
    difference: float
    significant: bool
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    n_rows: int | None = None
    n_seeds: int | None = None
    detectable: float | None = None
    shows_any: bool = True
    level: float | None = None
    alone_low: float | None = None
    alone_high: float | None = None
    rows_needed: float | None = None
    rows_to_tell: float | None = None
    chance: float | None = None


@dataclass(frozen=True)
class Standing:
    """A standing compares a method with the best of those that are trained, over resampled rows and seeds.

    `best` is the probability that no method is better, `within` that none is better by more than the margin.
    `loss` is the expected distance to the best, in the metric's own numbers.
    """

    contestant: str
    split: str
    metric: str
    best: float
    within: float
    loss: float


@dataclass(frozen=True)
class Finding:
    """A finding is something worth knowing about the run, with the command that fixes it.

    `splits` are those whose rows it says cannot measure quality.
    """

    level: str
    text: str = field(metadata={"key": "what"})
    contestant: str | None = None
    evidence: str = ""
    command: str | None = None
    splits: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RowRecord:
    """The texts of a row that may be shown."""

    input: str = ""
    references: list[str] = field(default_factory=list)


@dataclass(repr=False)
class Comparison:
    """A comparison has all records of its folder.

    `rows` and `answers` are empty where the texts may not be shown.
    """

    folder: Path
    study: Study
    trials: list[Trial] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    curves: list[Point] = field(default_factory=list)
    tables: list[Point] = field(default_factory=list)
    times: list[Spent] = field(default_factory=list)
    servings: list[Serving] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    tests: list[PairTest] = field(default_factory=list)
    standings: list[Standing] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    rows: dict[tuple[str, int], RowRecord] = field(default_factory=dict)
    answers: dict[tuple[str, int, str], dict[int | None, str]] = field(default_factory=dict)

    @property
    def methods(self) -> list[Contestant]:
        """The contestants that were trained."""
        return [item for item in self.study.contestants if not item.is_reference]

    @property
    def references(self) -> list[Contestant]:
        return [item for item in self.study.contestants if item.is_reference]

    def plot(self) -> list[Axes]:
        """Draw the scores with their 95 % intervals, on the test rows where there are any.

        A comparison at equal time (`compare.budget`) has a second plot: the best dev score so far against the
        seconds of each method. The result is a list of matplotlib's axes (`pip install 'softprompt[plot]'`).
        Raises SoftPromptError where nothing was scored.
        """
        from . import view  # it reads these classes

        return view.plot(self)

    def __repr__(self) -> str:
        from . import view

        return view.text(self)

    def _repr_html_(self) -> str:
        from . import view

        return view.html(self)
