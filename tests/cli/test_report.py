"""`softprompt report` from the shell."""

from __future__ import annotations

import json
import webbrowser

import pytest


@pytest.fixture
def compared(tmp_path):
    score = {"value": 0.8, "low": 0.7, "high": 0.9, "n": 50}
    lines = [
        {"kind": "study", "metric": "accuracy", "contestants": [{"name": "lora"}]},
        {"kind": "score", "contestant": "lora", "seed": 0, "split": "test", "metrics": {"accuracy": score}},
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_report_writes_both_files(run, compared, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    output = run("report", compared)
    assert output.code == 0 and str(compared / "report.html") in output.out and not opened
    data = run("report", compared, "--json", "--open").json
    assert data["bytes"] == (compared / "report.html").stat().st_size
    assert "80.0" in (compared / "report.md").read_text()
    assert opened == [(compared / "report.html").as_uri()]


def test_report_needs_a_comparison(run, tmp_path):
    output = run("report", tmp_path)
    assert output.code == 1 and "no comparison in" in output.err and "softprompt compare" in output.err
