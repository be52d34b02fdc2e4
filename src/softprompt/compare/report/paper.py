"""Writes the main table of a comparison for a paper, in LaTeX (booktabs) or CSV.

It has intervals and significance marks. Scores, intervals, costs and tests are those of the page
(`aggregate`, `verdict`); nothing is computed anew. LaTeX has the page's units (percent, points), CSV the
metrics' own numbers in full precision.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...page.numbers import MISSING, POINTS, SHARES, Unit, listed, unit
from .aggregate import Quality, costs, quality, splits
from .limits import unmeasurable
from .schema import Comparison, PairTest
from .sections.cost_kinds import KINDS, CostKind
from .verdict import turned

BETTER, WORSE = "*", "†"
ROW_NAMES = {"test": "seen rows", "unseen": "unseen rows"}
_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\u00a0": "~",
    "−": "$-$",
    "–": "--",
    "…": r"\ldots{}",
    "×": r"$\times$",
    "†": r"$^{\dagger}$",
    "*": "$^{*}$",
}


@dataclass(frozen=True)
class Marks:
    """Holds what corrected tests on one split and metric showed, against the best score and reference."""

    best: str
    reference: str | None
    worse: frozenset[str]  # than the best
    better: frozenset[str]  # than the reference

    def of(self, name: str) -> str:
        """Return the signs of a contestant."""
        return (BETTER if name in self.better else "") + (WORSE if name in self.worse else "")


def latex(comparison: Comparison) -> str:
    """Return a `table` environment, which needs the package booktabs: a row for each contestant."""
    study, paid = comparison.study, costs(comparison)
    columns = [(split, metric) for split in splits(comparison) for metric in _metrics(comparison, split)]
    scores = {key: quality(comparison, *key) for key in columns}
    marks = {key: marks_of(comparison, *key) for key in columns}
    kinds = [kind for kind in KINDS if kind.chosen and any(kind.key in cost for cost in paid.values())]
    lines = [
        "% The preamble needs \\usepackage{booktabs}.",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{_caption(comparison, marks)}}}",
        f"  \\begin{{tabular}}{{l{'l' * len(columns)}{'r' * len(kinds)}}}",
        "    \\toprule",
        *_heads(comparison, columns, kinds),
        "    \\midrule",
    ]
    for group in (comparison.methods, comparison.references):
        if group is comparison.references and group and lines[-1] != "    \\midrule":
            lines.append("    \\midrule")
        for contestant in group:
            name = contestant.name
            cells = [escaped(name)]
            cells += [_cell(unit(key[1]), scores[key], marks[key], name) for key in columns]
            cells += [escaped(kind.full(paid.get(name, {}).get(kind.key))) for kind in kinds]
            lines.append(f"    {' & '.join(cells)} \\\\")
    lines += ["    \\bottomrule", "  \\end{tabular}", "\\end{table}"]
    if study.command:
        lines.insert(0, f"% {' '.join(study.command.split())}")
    return "\n".join(lines) + "\n"


def table(comparison: Comparison) -> str:
    """Return CSV text with a header: a row for each contestant and split, numbers in full precision.

    `METRIC`, `METRIC_low` and `METRIC_high` are the mean over seeds and its 95 % interval, in the metric's
    own numbers. `METRIC_better_than_reference` and `METRIC_worse_than_best` are True where the corrected test
    shows it, False where it does not, and empty without a test. Costs have their units in their names.
    """
    paid, rows = costs(comparison), []
    kinds = [kind.key for kind in KINDS if any(kind.key in cost for cost in paid.values())]
    metrics = list(dict.fromkeys(m for split in splits(comparison) for m in _metrics(comparison, split)))
    for split in splits(comparison):
        values = {metric: quality(comparison, split, metric) for metric in metrics}
        marks = {metric: marks_of(comparison, split, metric) for metric in metrics}
        for contestant in comparison.study.contestants:
            name, main = contestant.name, values[comparison.study.metric].get(contestant.name)
            row: dict[str, Any] = {
                "method": name,
                "is_reference": contestant.is_reference,
                "split": split,
                "rows": None if main is None else main.n,
                "seeds": None if main is None else len(main.seeds) or None,
            }
            for metric in metrics:
                row |= _numbers(comparison, split, metric, values[metric].get(name), marks[metric], name)
            row |= {kind: paid.get(name, {}).get(kind) for kind in kinds}
            rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["method"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def marks_of(comparison: Comparison, split: str, metric: str) -> Marks | None:
    """Return the marks of a split and metric; None where nothing was scored."""
    scores, sign = quality(comparison, split, metric), _sign(comparison, metric)
    if not scores:
        return None
    if sign is None:
        return Marks("", None, frozenset(), frozenset())
    best = max(scores, key=lambda name: sign * scores[name].value)
    references = [item.name for item in comparison.references if item.name in scores]
    reference = max(references, key=lambda name: sign * scores[name].value, default=None)

    def shown(name: str, than: str | None, direction: int) -> bool:
        test = _test(comparison, split, metric, name, than)
        return test is not None and test.significant and direction * sign * test.difference > 0

    return Marks(
        best,
        reference,
        frozenset(name for name in scores if shown(name, best, -1)),
        frozenset(name for name in scores if shown(name, reference, 1)),
    )


def escaped(text: str) -> str:
    """Return a text as LaTeX prints it."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split(" ")))


def _test(comparison: Comparison, split: str, metric: str, a: str, b: str | None) -> PairTest | None:
    """Return the test of a against b, with a first."""
    for test in comparison.tests:
        if a != b and test.split == split and test.metric == metric and {test.a, test.b} == {a, b}:
            return test if test.a == a else turned(test)
    return None


def _metrics(comparison: Comparison, split: str) -> list[str]:
    """Return the metrics of a split, the study's own first."""
    known = dict.fromkeys(m for score in comparison.scores if score.split == split for m in score.metrics)
    return sorted(known, key=lambda metric: metric != comparison.study.metric)


def _sign(comparison: Comparison, metric: str) -> int | None:
    """Return 1 where more of a metric is better, -1 where less is, and None where it is not known.

    Old files say it of the study's metric alone. Of another metric that the library does not know, nothing is
    marked then.
    """
    if metric == comparison.study.metric:
        return 1 if comparison.study.higher_is_better else -1
    if metric in comparison.study.directions:
        return 1 if comparison.study.directions[metric] else -1
    return -1 if metric in LOWER else 1 if metric in HIGHER else None


#: The directions of the library's metrics, as `evaluation.metrics` has them (a test compares the two).
LOWER, HIGHER = {"mse", "perplexity", "kl"}, SHARES | POINTS | {"pearson"}


def _numbers(
    comparison: Comparison, split: str, metric: str, score: Quality | None, marks: Marks | None, name: str
) -> dict[str, Any]:
    """Return the columns of one metric in a row of the CSV."""

    def tested(than: str | None, names: frozenset[str]) -> bool | None:
        return None if _test(comparison, split, metric, name, than) is None else name in names

    return {
        metric: None if score is None else score.value,
        f"{metric}_low": None if score is None else score.low,
        f"{metric}_high": None if score is None else score.high,
        f"{metric}_better_than_reference": None if marks is None else tested(marks.reference, marks.better),
        f"{metric}_worse_than_best": None if marks is None else tested(marks.best, marks.worse),
    }


def _cell(u: Unit, scores: Mapping[str, Quality], marks: Marks | None, name: str) -> str:
    score = scores.get(name)
    if score is None or marks is None:
        return escaped(MISSING)
    value = escaped(u.bare(score.value))
    if marks.best and u.bare(score.value) == u.bare(scores[marks.best].value):  # equal as they are printed
        value = f"\\textbf{{{value}}}"
    interval = escaped(u.interval(score.low, score.high)).strip()
    return value + escaped(marks.of(name)) + (f" {{\\footnotesize {interval}}}" if interval else "")


def _heads(comparison: Comparison, columns: list[tuple[str, str]], kinds: list[CostKind]) -> list[str]:
    """Return the header: a line of splits over their metrics, where there is more than one split."""
    names = ["method", *(unit(metric).axis for _, metric in columns), *(kind.label for kind in kinds)]
    head = f"    {' & '.join(map(escaped, names))} \\\\"
    counts = {split: sum(s == split for s, _ in columns) for split in splits(comparison)}
    if len(counts) < 2:
        return [head]
    groups = [f"\\multicolumn{{{n}}}{{c}}{{{escaped(_rows_name(split))}}}" for split, n in counts.items()]
    rules, at = [], 2
    for count in counts.values():
        rules.append(f"\\cmidrule(lr){{{at}-{at + count - 1}}}")
        at += count
    return [f"    {' & '.join(['', *groups, *[''] * len(kinds)])} \\\\", f"    {' '.join(rules)}", head]


def _rows_name(split: str) -> str:
    return ROW_NAMES.get(split, f"{split} rows")


def _caption(comparison: Comparison, marks: Mapping[tuple[str, str], Marks | None]) -> str:
    """Say what the table shows, and what its signs mean."""
    study = comparison.study
    main = {key: item for key, item in marks.items() if item is not None and key[1] == study.metric}
    parts = [f"{study.name}: " if study.name else "", f"means over {len(study.seeds) or 1} seed"]
    parts += ["s" if len(study.seeds) > 1 else "", " with 95 % intervals"]
    parts += [f", base model {study.model}." if study.model else "."]
    text = escaped("".join(parts)) + " Bold: the best score of a column."
    if any(item.better for item in marks.values() if item):
        names = dict.fromkeys(item.reference for item in main.values() if item.reference)
        text += (
            f" {escaped(BETTER)}: shown to be better than the best reference ({escaped(listed(list(names)))}"
        )
        text += " for the first metric)."
    if any(item.worse for item in marks.values() if item):
        text += f" {escaped(WORSE)}: shown to be worse than the best score."
    if comparison.tests:
        text += " Tests are corrected for their number; without a sign, no difference was shown."
    else:
        text += " No test was made."
    for split in splits(comparison):
        if (why := unmeasurable(comparison, split)) is not None:
            text += f" The {escaped(_rows_name(split))} cannot measure quality: {escaped(why)}."
    return text
