"""A comparison as a notebook shows it: its answer with a table of the scores, and plots of the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import SoftPromptError
from ...page import plots
from ...page.blocks import Table
from ...page.notebook import fragment
from ...page.numbers import Unit, seconds, unit
from . import progress
from .aggregate import Quality, costs, main_split, quality
from .answer import answer
from .schema import Comparison
from .summary import score_text
from .verdict import verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def text(comparison: Comparison) -> str:
    """Return one line: the headline of the answer, and the folder."""
    headline, _ = answer(comparison, verdict(comparison))
    return f"Comparison({headline}; {comparison.folder})"


def html(comparison: Comparison) -> str:
    """Return the answer, and a table of scores and training times."""
    headline, sentences = answer(comparison, verdict(comparison))
    split, u = main_split(comparison), unit(comparison.study.metric)
    paid = costs(comparison)
    rows = [
        [name, score_text(u, score), seconds(paid.get(name, {}).get("train_seconds"))]
        for name, score in _ordered(comparison, split).items()
    ]
    tables = []
    if rows:
        caption = f"Scores on the {split} rows, with 95 % intervals"
        tables.append(Table(caption, ["method", u.label, "training time"], rows, (1, 2)))
    page = comparison.folder / "report.html"
    more = [f"Everything else is in {page}"] if page.exists() else []
    return fragment(headline, [*sentences, *more], tables)


def plot(comparison: Comparison) -> list[Axes]:
    """Draw the scores with their intervals, and below them the dev scores by seconds at equal time.

    Raises SoftPromptError where nothing was scored.
    """
    split, u = main_split(comparison), unit(comparison.study.metric)
    scores = _ordered(comparison, split)
    if not scores:
        raise SoftPromptError(
            f"{comparison.folder} has no scores to plot",
            why="no contestant has been scored yet",
            fix="run the comparison again, which continues it, or read the errors in its report.html",
        )
    curves = progress.of_methods(comparison)
    axes = plots.panels(0.9 + 0.38 * len(scores), *([3.4] if curves else []))
    looks = {item.name: i for i, item in enumerate(comparison.methods)}
    marks = {n: plots.Mark(n, s.value, s.low, s.high, looks.get(n)) for n, s in scores.items()}
    lower = "" if comparison.study.higher_is_better else ", lower is better"
    plots.intervals(axes[0], list(marks.values()), u, f"{u.axis}, {split} rows{lower}")
    if curves:
        _along(axes[1], curves, looks, u)
        axes[1].set_ylabel(f"{u.axis}, dev rows{lower}")
    return axes


def _along(axes: Axes, curves: progress.Curves, looks: dict[str, int], u: Unit) -> None:
    """Draw the best dev score so far of each method, a mean over seeds; the band holds the seeds."""
    for name, points in curves.items():
        mark, times = plots.Mark(name, 0.0, look=looks[name]), [point.seconds for point in points]
        low, high = [u.scale * p.low for p in points], [u.scale * p.high for p in points]
        style = {"drawstyle": "steps-post", "marker": mark.shape, "ms": 4}
        axes.plot(times, [u.scale * p.value for p in points], color=mark.colour, label=name, **style)
        axes.fill_between(times, low, high, step="post", color=mark.colour, alpha=0.15, lw=0)
    axes.set_xlabel("seconds of training of the whole method: its search and all seeds")
    axes.grid(alpha=0.3)
    plots.legend(axes)


def _ordered(comparison: Comparison, split: str) -> dict[str, Quality]:
    """Return the scores, the best first."""
    sign = -1 if comparison.study.higher_is_better else 1
    return dict(sorted(quality(comparison, split).items(), key=lambda item: sign * item[1].value))
