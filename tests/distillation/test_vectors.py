"""Several numbers of vectors are tried side by side, and the smallest that does is kept."""

from __future__ import annotations

import json

import pytest

import softprompt
from softprompt.distillation import answers
from softprompt.distillation.vectors import Point, smallest
from softprompt.errors import SoftPromptError

TEXT = "say it backwards, please, and loud"
WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss", "tree", "fog"]
SETTINGS = {"steps": 3, "batch_size": 4, "lr": 0.05, "dtype": "float32", "max_new_tokens": 6}


def test_the_smallest_within_the_interval_of_the_best_is_kept():
    shares = {1: (0.2, 0.1, 0.3), 4: (0.55, 0.4, 0.7), 16: (0.7, 0.5, 0.8), 64: (0.65, 0.6, 0.7)}
    points = [Point(n, share, 3, "") for n, share in shares.items()]
    assert smallest(points).vectors == 4  # 0.55 is not below 0.5, where the interval of the best begins
    assert smallest(points[:1] + points[2:]).vectors == 16


@pytest.fixture
def lm(model_folder, tmp_path, monkeypatch):
    """A model whose answers to the words are in the folder of `tmp_path / "out"` already."""
    monkeypatch.setattr(answers, "_identity", lambda recipe, lm: "same")
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    rows = [{"request": w, "answer": w[::-1], "teacher": "same"} for w in WORDS]
    (tmp_path / "out-distill").mkdir()
    (tmp_path / "out-distill/requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return softprompt.load(str(model_folder), dtype="float32")


def test_auto_tries_numbers_up_to_the_text(lm, tmp_path, capsys):
    options = {"vectors": "auto", "output": tmp_path / "out", **SETTINGS}
    with pytest.raises(SoftPromptError, match="2 seeds cannot be trained"):
        softprompt.distill(lm, TEXT, WORDS, seeds=2, **options)
    with pytest.raises(SoftPromptError, match="a time is given"):
        softprompt.distill(lm, TEXT, WORDS, time=60.0, **{**options, "vectors": 4})
    result = softprompt.distill(lm, TEXT, WORDS, time=600.0, progress=True, **options)
    assert "it takes about" in capsys.readouterr().err  # measured ahead, where progress is shown
    curve = json.loads((tmp_path / "out-distill" / "distill.json").read_text())["curve"]
    assert [point["vectors"] for point in curve] == [1, 4, 16] and len(lm.text_ids(TEXT)) < 64
    kept = smallest(result.curve)
    manifest = softprompt.open_prompt(tmp_path / "out", lm).artifact.manifest
    assert manifest["options"]["length"] == kept.vectors == result.report()["vectors"]
    assert (tmp_path / "out-distill" / "vectors-16" / "softprompt.json").exists()
    again = softprompt.distill(lm, TEXT, WORDS, **options)
    assert again.run.was_finished and smallest(again.curve).vectors == kept.vectors


def test_a_single_vector_is_trained(lm, tmp_path):
    """`distill` keeps the first vector only where others are trained; `tune` refuses that."""
    result = softprompt.distill(
        lm, TEXT, WORDS, vectors=1, seeds=1, output=tmp_path / "out", **SETTINGS, freeze_first=True
    )
    assert result.run.artifact.manifest["options"]["freeze_first"] is False
    with pytest.raises(SoftPromptError, match="has nothing to train") as refused:
        softprompt.tune(
            lm,
            "prefix-tuning",
            [{"input": w, "target": w[::-1]} for w in WORDS],
            output=tmp_path / "tuned",
            length=1,
            freeze_first=True,
            steps=1,
        )
    assert "freeze_first" in str(refused.value)
