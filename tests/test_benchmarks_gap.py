"""The short form of benchmarks.gap compares every method at equal time; the lines are sorted into groups."""

from __future__ import annotations

import json

import pytest
from benchmarks import gap
from benchmarks.comparisons import budgeted
from tests.printed import printed


@pytest.mark.whole
def test_the_short_form_has_a_score_for_every_method():
    options = ("--only", "webnlg", "--variant", "layer_scale", "--place", "after")
    code, out = printed(gap.main, "--short", "--json", *options)
    result = json.loads(out)
    names = ["prefix-tuning/after", "prefix-tuning/after+layer_scale", "lora", "full"]
    assert code == 0 and [line["method"] for line in result["lines"]] == names and result["where"]
    assert all(line["perplexity"] > 1 and line["dev"] > 1 for line in result["lines"])
    assert all(line["steps"] > 0 and line["planned"] <= 2 and line["seconds"] > 0 for line in result["lines"])
    (line,) = result["gap"]
    assert line.keys() == {"set", "split", "before", "after", "lora", "full"}


def line(method: str, dev: float, perplexity: float, split: str = "test"):
    return {"set": "e2e", "method": method, "split": split, "dev": dev, "perplexity": perplexity}


def test_each_group_is_named_by_its_best_dev_score_and_not_by_the_measured_one():
    before, other = line("prefix-tuning/after", 4.0, 4.5), line("prefix-tuning/before", 3.0, 4.7)
    variant = line("prefix-tuning/after+average", 2.0, 5.0)
    (row,) = gap.gap([before, other, variant, line("lora", 9.0, 3.25)])
    assert row["before"] == "4.7 (prefix-tuning/before)" and row["lora"] == "3.25" and "full" not in row
    assert row["after"] == "5 (prefix-tuning/after+average)"
    (row,) = gap.gap([before, line("prefix-tuning/after+average", 8.0, 1.0)])
    assert row["after"] == row["before"] == "4.5 (prefix-tuning/after)"  # a variant that does not help


def test_the_table_has_a_cell_for_each_column():
    rows = budgeted.table(
        list(gap.gap([line("lora", 1.0, 2.0), line("lora", 1.0, 2.0, "unseen")]))
    ).splitlines()
    assert len(rows) == 4 and len({row.count("|") for row in rows}) == 1


@pytest.mark.parametrize(
    "arguments", [[], ["--data", "x", "--only", "sst2"], ["--data", "x", "--variant", "no"]]
)
def test_wrong_arguments_are_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        gap.main(arguments)
    assert caught.value.code == 2 and "error" in capsys.readouterr().err
