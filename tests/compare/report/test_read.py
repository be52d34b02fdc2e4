"""A folder may hold many things; where it cannot be read, the error names the line and the reason."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from softprompt.compare import report
from softprompt.compare.report import read
from softprompt.compare.report.schema import VERSION
from softprompt.errors import SoftPromptError

STUDY = {"kind": "study", "metric": "accuracy", "contestants": [{"name": "a"}, {"name": "b"}]}


def folder_of(tmp_path, *lines: object):
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (tmp_path / "results.jsonl").write_text(text)
    return tmp_path


def test_everything_is_read(build):
    found = read.comparison(build())
    assert len(found.methods) == 7 and len(found.references) == 3
    kinds = ("trials", "scores", "examples", "curves", "tables", "servings", "controls", "tests", "findings")
    assert all(getattr(found, kind) for kind in kinds)
    assert len(found.rows) == 180 and len(found.answers) == 180 * 10
    assert found.answers["test", 0, "lora"].keys() == {0, 1, 2}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([STUDY, "{"], "line 2"),
        ([STUDY, "[]"], "not a JSON object"),
        ([STUDY, {"kind": "score", "contestant": "a", "split": "test"}], "no 'metrics'"),
        ([{"kind": "score", "contestant": "a", "split": "test", "metrics": {}}], "says what was compared"),
        ([{**STUDY, "version": VERSION + 1}], f"version {VERSION + 1}"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, lines, words):
    with pytest.raises(SoftPromptError) as error:
        report.write(folder_of(tmp_path, *lines))
    assert words in str(error.value) and error.value.fix
    assert not (tmp_path / "report.html").exists()


def test_no_comparison(tmp_path):
    with pytest.raises(SoftPromptError, match="no comparison in"):
        report.write(tmp_path)


def test_unknown_kinds_and_fields_are_passed_over_and_numbers_are_finite(tmp_path):
    lines = [
        {**STUDY, "weather": "fair"},
        {"kind": "moon"},
        '{"kind": "score", "contestant": "a", "split": "test", "metrics": {"accuracy": {"value": NaN}}}',
    ]
    found = read.comparison(folder_of(tmp_path, *lines))
    assert found.scores[0].metrics["accuracy"]["value"] is None
    assert "No answer yet" in report.write(tmp_path).read_text()


def test_the_study_may_stand_in_its_own_file(tmp_path):
    folder_of(tmp_path, {"kind": "moon"})
    (tmp_path / "study.json").write_text(json.dumps(STUDY))
    assert [one.name for one in read.comparison(tmp_path).methods] == ["a", "b"]


@pytest.mark.process
def test_no_training_code_is_imported(build):
    code = (
        "import sys; from pathlib import Path; from softprompt.compare import report\n"
        f"report.write(Path({str(build())!r}))\n"
        "heavy = {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
