"""An evaluation in a notebook: its table, and each label's share with Wilson's interval, counted by hand."""

from __future__ import annotations

import math

import matplotlib
import pytest

from softprompt.errors import SoftPromptError
from softprompt.evaluation.records import Evaluation, Record, score

matplotlib.use("agg")


def evaluation(pairs: list[tuple[str, str]], metric: str = "accuracy") -> Evaluation:
    """Return the evaluation of (answer, label) pairs."""
    records = [Record("text", answer, (label,), 0, 1.0, 1) for answer, label in pairs]
    return Evaluation(score([metric], records), records)


def wilson(right: int, rows: int) -> tuple[float, float]:
    z, share = 1.959963984540054, right / rows
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return 100 * (middle - half), 100 * (middle + half)


def test_a_plot_has_each_labels_share():
    axes = evaluation([("a", "a")] * 3 + [("b", "a")] + [("b", "b")] * 5).plot()
    names = dict(zip(axes.get_yticks(), (text.get_text() for text in axes.get_yticklabels()), strict=True))
    shares, bounds = {}, {}
    for line in axes.get_lines():
        (x, y), *rest = line.get_xydata()
        if rest:
            bounds[names[y]] = (x, rest[0][0])
        else:
            shares[names[y]] = x
    assert shares == {"a (4)": pytest.approx(75), "b (5)": pytest.approx(100)}
    assert bounds == {"a (4)": pytest.approx(wilson(3, 4)), "b (5)": pytest.approx(wilson(5, 5))}
    assert names[max(names)] == "a (4)"  # the lowest is at the top


def test_of_many_labels_the_lowest_are_drawn():
    pairs = [(f"label {i}", f"label {i}") for i in range(40)] + [("label 0", "label 39")]
    axes = evaluation(pairs).plot()
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert (
        len(names) == 30 and names[0] == "label 39 (2)" and axes.get_title() == "the 30 lowest of 40 labels"
    )


def test_a_label_with_dollar_signs_is_no_formula(tmp_path):
    axes = evaluation([("a", "from $5 to_{ $6")] * 3).plot()
    axes.figure.savefig(tmp_path / "labels.svg")
    assert [text.get_text() for text in axes.get_yticklabels()] == ["from $5 to_{ $6 (3)"]


def test_labels_are_plotted_whatever_the_metrics():
    records = [Record("text", answer, ("a",), 0, 1.0, 1, scores=(-0.1, -2.0)) for answer in "aaab"]
    axes = Evaluation(score(["macro_f1"], records), records).plot()
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a (4)"]


def test_rows_without_labels_are_not_plotted():
    with pytest.raises(SoftPromptError, match="no labels to plot"):
        evaluation([("some text", "a text")], "chrf").plot()
    saved = Evaluation.from_json(evaluation([("a", "a")]).to_json())
    with pytest.raises(SoftPromptError, match="no rows to plot"):
        saved.plot()


def test_the_table_and_the_line():
    result = evaluation([("a", "a")] * 3 + [("b", "a")])
    for shown in (result, Evaluation.from_json(result.to_json())):
        assert repr(shown).startswith("Evaluation(accuracy 75.0\u00a0%") and repr(shown).endswith("; 4 rows)")
        assert "4 rows scored" in shown._repr_html_() and "75.0\u00a0%</td>" in shown._repr_html_()
