"""A comparison in a notebook: its table and plots, compared with the files that it was read from."""

from __future__ import annotations

import matplotlib
import pytest
from tests.compare.report.conftest import METHODS, REFERENCES
from tests.compare.report.test_progress import made

from softprompt.compare.report import progress
from softprompt.compare.report.read import comparison
from softprompt.compare.report.schema import Comparison, Contestant, Study
from softprompt.errors import SoftPromptError

matplotlib.use("agg")


def points(axes) -> dict[str, float]:
    """Return the drawn values by the names beside them."""
    names = {y: text.get_text() for y, text in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
    single = [line.get_xydata() for line in axes.get_lines() if len(line.get_xydata()) == 1]
    return {names[y]: x for ((x, y),) in single}


def test_scores_are_drawn_with_the_best_first(build):
    result = comparison(build())
    (axes,) = result.plot()
    seeds = {}
    for line in result.scores:
        if line.split == "test":
            seeds.setdefault(line.contestant, []).append(100 * line.metrics["accuracy"]["value"])
    means = {name: pytest.approx(sum(values) / len(values)) for name, values in seeds.items()}
    assert points(axes) == means and set(means) == {*METHODS, *REFERENCES}
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert shown == sorted(shown, key=lambda name: -points(axes)[name])
    colours = {text: line.get_color() for text, line in zip(shown, axes.get_lines()[1::2], strict=True)}
    assert {colours[name] for name in REFERENCES} == {"0.5"} and "0.5" not in {colours[n] for n in METHODS}


def test_of_a_metric_that_is_better_when_lower_the_lowest_is_first(build):
    (axes,) = comparison(build(metric="mse", higher_is_better=False, task="generation")).plot()
    values = [points(axes)[text.get_text()] for text in axes.get_yticklabels()]
    assert values == sorted(values) and "lower is better" in axes.get_xlabel()


def test_at_equal_time_scores_are_drawn_against_seconds(build):
    result = comparison(build())
    timed = made()
    result.study, result.trials, result.times = timed.study, timed.trials, timed.times
    result.scores = [s for s in result.scores if s.contestant in ("prefix-tuning/after", "lora")]
    names = {"prefix-tuning/after": "quick", "lora": "slow"}
    for each in result.scores:
        object.__setattr__(each, "contestant", names[each.contestant])
    scores, along = result.plot()
    assert set(points(scores)) == {"quick", "slow"}
    curves = {line.get_label(): line.get_xydata().tolist() for line in along.get_lines()}
    expected = progress.of_methods(timed)
    assert curves == {
        n: [[p.seconds, pytest.approx(100 * p.value)] for p in ps] for n, ps in expected.items()
    }
    colours = {line.get_label(): line.get_color() for line in along.get_lines()}
    assert colours["quick"] != colours["slow"]


def test_the_table_has_the_answer_and_escapes_it(build):
    result = comparison(build(title="<script>"))
    page = result._repr_html_()
    assert "These rows do not tell" in page and "<td>tf-idf</td>" in page and "<script>" not in page
    assert "report.html" not in page  # no report was written
    assert len(repr(result)) < 400 and str(result.folder) in repr(result)


def test_without_scores_there_is_an_answer_and_no_plot(tmp_path):
    empty = Comparison(tmp_path, Study("accuracy", [Contestant("<b>")]))
    assert "No answer yet" in empty._repr_html_() and "<b>" not in empty._repr_html_().replace("<strong>", "")
    with pytest.raises(SoftPromptError, match="has no scores to plot"):
        empty.plot()
