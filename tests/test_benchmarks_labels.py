"""The short form of benchmarks.labels compares both forms of labels at equal time."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from benchmarks import labels
from tests.printed import printed


@pytest.mark.whole
def test_the_short_form_has_a_score_for_every_method_in_both_forms():
    code, out = printed(labels.main, "--short", "--json", "--only", "banking77")
    result = json.loads(out)
    trained = [(line["method"], line.get("form")) for line in result["lines"] if "steps" in line]
    assert code == 0 and result["where"]
    assert sorted(trained) == sorted((name, form) for name in labels.METHODS for form in labels.FORMS)
    others = [line for line in result["lines"] if "steps" not in line]
    assert [(line["method"], line.get("form")) for line in others] == [(labels.REFERENCE, None)]
    assert all(0 <= line["accuracy"] <= 1 and line["set"] == "banking77" for line in result["lines"])


def test_rows_that_are_measured_are_not_those_that_choose(tmp_path):
    args = SimpleNamespace(data=tmp_path, rows=5, dev=2, measured=3, test=False)
    (tmp_path / "x").mkdir()
    for split in ("train", "validation", "test"):
        rows = [{"input": f"{split} {i}", "target": "a"} for i in range(9)]
        (tmp_path / "x" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parts = labels.parts("x", args)
    assert {split: len(rows) for split, rows in parts.items()} == {"train": 5, "dev": 2, "test": 3}
    texts = {split: {row["input"] for row in rows} for split, rows in parts.items()}
    assert all(text.startswith("validation") for text in texts["test"]) and not texts["dev"] & texts["test"]
    args.test, args.rows = True, 0
    parts = labels.parts("x", args)
    assert len(parts["train"]) == 9 and all(row["input"].startswith("test") for row in parts["test"])


@pytest.mark.parametrize("arguments", [[], ["--data", "x", "--only", "sst2"]])
def test_wrong_arguments_are_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        labels.main(arguments)
    assert caught.value.code == 2 and "error" in capsys.readouterr().err
