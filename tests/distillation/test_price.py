"""`check` prices a distillation from a few rows; the teacher answers and scores nothing."""

from __future__ import annotations

import json

import pytest

from softprompt.cache.teacher import TeacherDistributions
from softprompt.cli import main
from softprompt.distillation import several, work


def test_check_runs_no_teacher(model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(TeacherDistributions, "compute", lambda *a: pytest.fail("the teacher was run"))
    for module in (several, work):
        monkeypatch.setattr(module, "answers", lambda *a: pytest.fail("the teacher answered"))
    rows = [{"request": f"sun {i}"} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "model": str(model_folder),
        "data": str(tmp_path / "rows.jsonl"),
        "template": {"input": "{{ request }}", "target": "{{ answer }}"},
        "task": {"objective": "distil", "max_new_tokens": 6},
        "teacher": {"context": "say it backwards, please"},
        "method": {"name": "prefix-tuning", "length": 4},
        "train": {"steps": 4, "batch_size": 4, "dtype": "float32"},
        "output": str(tmp_path / "out"),
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["check", str(tmp_path / "recipe.yaml"), "--json"]) == 0
    price = json.loads(capsys.readouterr().out)["distillation"]
    assert (price["requests"], price["seeds"], price["soft_tokens"]) == (20, 3, 4)
    assert price["saved_tokens"] == price["text_tokens"] - 4
    assert price["training_seconds"] >= 3 * 4 * price["step_seconds"] > 0
    assert not (tmp_path / "out").exists() and not (tmp_path / "out-distill").exists()
    assert main(["check", str(tmp_path / "recipe.yaml")]) == 0
    assert "softprompt distill" in capsys.readouterr().out
    auto = [str(tmp_path / "recipe.yaml"), "length=auto", "--json"]
    assert main(["check", *auto]) == 0
    price = json.loads(capsys.readouterr().out)["distillation"]
    assert (price["trained"], price["soft_tokens"]) == (
        3,
        16,
    )  # 1, 4 and 16, of a text of fewer than 64 tokens
    assert price["training_seconds"] >= 3 * 4 * price["step_seconds"] > 0
    # a start as the match of the text is priced on stand-ins that are shorter than the vectors
    (tmp_path / "text.txt").write_text("say it backwards, please")
    text = ["--system", str(tmp_path / "text.txt"), "--requests", str(tmp_path / "rows.jsonl"), "--check"]
    settings = ["template.chat=false", f"model={model_folder}", f"output={tmp_path / 'out'}", "steps=4"]
    settings += ["max_new_tokens=2", "init=matched", "length=20", "dtype=float32", "keep=0"]
    assert main(["distill", *text, *settings, "--json"]) == 0
    price = json.loads(capsys.readouterr().out)["distillation"]
    assert price["start_seconds"] > 0 and price["soft_tokens"] == 20
    assert price["price"] is None
    assert main(["distill", *text, *settings, "--price-hour", "7200", "--json"]) == 0
    price = json.loads(capsys.readouterr().out)["distillation"]
    assert price["price"] == pytest.approx(2 * price["seconds"])
    assert main(["distill", *text, *settings, "--price-hour", "7200"]) == 0
    assert "at 7200 an hour" in capsys.readouterr().out
    assert not (tmp_path / "out").exists() and not (tmp_path / "out-distill").exists()
    recipe |= {"teacher": {"texts": {"a": {"context": "x"}, "b": {"context": "y"}}}}
    recipe["data"] = {"train": str(tmp_path / "rows.jsonl"), "prompt_field": "name"}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["check", str(tmp_path / "recipe.yaml")]) == 1
    assert "prices the distillation of one text" in capsys.readouterr().err
