"""The short form of benchmarks.distill measures something, and fails where nothing is measured."""

from __future__ import annotations

import pytest
from benchmarks.distill import MEASURES, main


def test_every_short_form_gives_results(capsys):
    assert main(["--short"]) == 0
    out = capsys.readouterr().out
    assert "not measured" not in out
    assert all(f"## {name}" in out for name in MEASURES)
    assert out.count("| pirate |") == 5  # three lengths, and two shares of general text


def test_a_measure_that_fails_makes_the_call_fail(capsys):
    assert main(["system", "--short", "--lengths", "4", "--set", "lr=-1"]) == 1
    assert "not measured: system-pirate-4" in capsys.readouterr().out


def test_an_unknown_prompt_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["system", "--only", "pirat"])
    assert "the prompts are glossary" in capsys.readouterr().err
