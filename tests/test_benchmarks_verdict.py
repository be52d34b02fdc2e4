"""The benchmark of the rule that names a method, in its short form."""

from __future__ import annotations

import numpy as np
from benchmarks import verdict

from softprompt.compare.report.schema import PairTest


def test_on_few_rows_the_new_rule_loses_less_than_the_old_one():
    """Methods eight points apart on 20 rows: the cheapest of five is a random one, ten points behind."""
    named = verdict.simulate(25, rows=20, seeds=2, points=8.0)
    old, new = ([each.loss for each in named[rule]] for rule in ("old", "new"))
    assert np.mean(new) < np.mean(old) - 0.02
    assert not any(each.tells for each in named["new"])


def test_the_table_has_a_cell_for_each_column(capsys):
    verdict.main(["--sets", "2", "--rows", "20", "--seeds", "2", "--apart", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1


def test_the_old_rule_named_the_cheaper_of_a_pair_that_was_not_told_apart():
    scores, prices = {"slow": 0.675, "cheap": 0.45, "worse": 0.2}, {"slow": 80.0, "cheap": 12.0, "worse": 1.0}
    pairs = [("slow", "cheap", 0.225, False), ("slow", "worse", 0.475, True), ("cheap", "worse", 0.25, False)]
    tests = [PairTest("test", "accuracy", *pair) for pair in pairs]
    assert verdict.old_rule(scores, tests, prices) == "cheap"
