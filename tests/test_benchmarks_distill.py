"""The short form of benchmarks.distill measures something, and fails where nothing is measured."""

from __future__ import annotations

import pytest
from benchmarks.distill import MEASURES, main


def test_every_short_form_gives_results(capsys):
    assert main(["--short"]) == 0
    out = capsys.readouterr().out
    assert "not measured" not in out
    assert all(f"## {name}" in out for name in MEASURES)
    assert out.count("| pirate |") == 6  # three lengths, and three shares of general text
    assert out.count("| short | 185 |") == 2  # two ratios
    assert out.count("demonstrations-short-") == 4  # two seeds, with and without the tricks
    assert out.count("| short | exact_match |") == 1
    assert out.count("| support | ") == 5  # three starts, two of which are plain
    assert out.count("| embedded | ") == 2  # alone and under load
    assert out.count("| alone | ") == out.count("| together | ") == 2  # with one sink, and with all


def test_a_measure_that_fails_makes_the_call_fail(capsys):
    assert main(["system", "--short", "--lengths", "4", "--set", "lr=-1"]) == 1
    assert "not measured: system-pirate-4" in capsys.readouterr().out


def test_an_unknown_prompt_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["system", "--only", "pirat"])
    assert "it has pirate" in capsys.readouterr().err
