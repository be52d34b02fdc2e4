"""An evaluation as a notebook shows it: a table of its metrics, and a plot of each label's rows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..errors import SoftPromptError
from ..page import plots
from ..page.blocks import Table
from ..page.notebook import fragment
from ..page.numbers import count, share, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .records import Evaluation

#: More labels than these are not read on one plot: those with the lowest shares are drawn.
MOST = 30


def text(evaluation: Evaluation) -> str:
    """Return one line with all metrics: `Evaluation(accuracy 84.1 % (81.6 … 86.4), …; 500 rows)`."""
    scores = (
        f"{unit(name).label} {unit(name).value(score.value)}{unit(name).interval(score.low, score.high)}"
        for name, score in evaluation.metrics.items()
    )
    rows = _rows(evaluation)
    return f"Evaluation({', '.join(scores) or 'no metrics'}; {count(rows)} {'row' if rows == 1 else 'rows'})"


def html(evaluation: Evaluation) -> str:
    """Return a table of the metrics, with their intervals and the rows that each counted."""
    rows = []
    for name, score in evaluation.metrics.items():
        u = unit(name)
        interval = u.interval(score.low, score.high).strip(" ()")
        rows.append([u.label, u.value(score.value), interval, count(score.n)])
    table = Table("", ["metric", "value", "95 % interval", "rows"], rows, (1, 2, 3))
    number = _rows(evaluation)
    return fragment(f"{count(number)} {'row' if number == 1 else 'rows'} scored", [], [table])


def _rows(evaluation: Evaluation) -> int:
    """Return the number of rows; an evaluation that was saved has it in its scores alone."""
    return evaluation.n or max((score.n for score in evaluation.metrics.values()), default=0)


def plot(evaluation: Evaluation) -> Axes:
    """Draw the share of each label's rows that were answered right, with its 95 % interval (Wilson 1927).

    Raises SoftPromptError where the rows have no labels, or are not there.
    """
    if not evaluation.records:
        raise SoftPromptError(
            "this evaluation has no rows to plot",
            why="it was read from a file, which holds the metrics alone",
            fix="tuned.evaluate(rows).plot()",
        )
    # labels and choices have a score each, whatever metrics the task names
    has_labels = all(record.scores is not None for record in evaluation.records)
    if "accuracy" not in evaluation.metrics and not has_labels:
        raise SoftPromptError(
            "this evaluation has no labels to plot",
            why=f"its metrics are {', '.join(evaluation.metrics) or 'none'}: no row is simply right or wrong",
            fix="evaluate a task of labels or choices, or print evaluation.metrics",
        )
    total = Counter(record.references[0] for record in evaluation.records)
    right = Counter(r.references[0] for r in evaluation.records if r.prediction in r.references)
    marks = sorted((_mark(label, right[label], total[label]) for label in total), key=lambda m: m.value)
    (axes,) = plots.panels(0.9 + 0.38 * min(MOST, len(marks)))
    plots.intervals(axes, marks[:MOST], share("share", "right"), "rows of this label answered right (%)")
    if len(marks) > MOST:
        axes.set_title(f"the {MOST} lowest of {len(marks)} labels")
    axes.set_xlim(-3, 107)
    return axes


def _mark(label: str, right: int, rows: int) -> plots.Mark:
    from scipy.stats import binomtest

    interval = binomtest(right, rows).proportion_ci(method="wilson")
    return plots.Mark(f"{label} ({rows})", right / rows, float(interval.low), float(interval.high), 0)
