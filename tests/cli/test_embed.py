"""`softprompt embed`: the vectors of `Tuned.encode` in each form, and errors in words."""

from __future__ import annotations

import json

import numpy as np
import pytest

import softprompt
from softprompt.artifacts import manifest as manifests
from softprompt.artifacts.model_card import model_card
from softprompt.cli import main

pytestmark = pytest.mark.whole

ROWS = [{"query": f"what of {w}", "positive": f"{w} is it"} for w in ("sun", "mud", "cake", "rain")]


@pytest.fixture(scope="module")
def tuned(bert_folder, tmp_path_factory):
    return softprompt.tune(
        str(bert_folder), "prompt-tuning", ROWS, dev=ROWS, task="embedding", steps=1, length=2, lr=0.5,
        dtype="float32", output=tmp_path_factory.mktemp("embed") / "a",
    )  # fmt: skip


def test_each_form_has_the_vectors_of_encode(tuned, tmp_path, capsys):
    folder, texts = str(tuned.artifact.path), ["what of tea", "a"]
    expected = tuned.encode(texts)
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    source = ["embed", folder, "--file", str(tmp_path / "texts.txt")]
    assert main([*source, "--output", str(tmp_path / "v.npy")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-5)
    assert main([*source, "--output", str(tmp_path / "v.jsonl")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["index"] for line in lines] == [0, 1]
    np.testing.assert_allclose([line["embedding"] for line in lines], expected, atol=1e-5)
    capsys.readouterr()
    assert main(["embed", folder, texts[0], "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(printed["embeddings"], expected[:1], atol=1e-5)


def test_mistakes_are_named(tuned, tmp_path, capsys):
    folder = str(tuned.artifact.path)
    (tmp_path / "texts.txt").write_text("a\n\nb\n", encoding="utf-8")
    assert main(["embed", folder, "--file", str(tmp_path / "texts.txt")]) == 1
    assert "line 2 is blank" in capsys.readouterr().err
    assert main(["embed", folder, "a", "--output", "v.csv"]) == 1
    assert ".npy or .jsonl" in capsys.readouterr().err
    assert main(["generate", folder, "a"]) == 1
    assert "softprompt embed" in capsys.readouterr().err


def test_check_prices_a_run_and_the_next_command_is_embed(bert_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    recipe = f"model: {bert_folder}\ndata: rows.jsonl\ntask: embedding\nmethod: prompt-tuning\n"
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    assert main(["check", "recipe.yaml", "batch_size=2", "steps=2", "length=2"]) == 0
    assert "is it" in capsys.readouterr().out.replace("|", "").replace("Ġ", " ")
    assert main(["tune", "recipe.yaml", "batch_size=2", "steps=1", "length=2", "output=out"]) == 0
    assert 'softprompt embed out "your input"' in capsys.readouterr().out
    assert main(["compose", "--average", "out", "out", "--out", "both"]) == 0
    assert 'softprompt embed both "your input"' in capsys.readouterr().out
    card = model_card(manifests.read(tmp_path / "out" / "softprompt.json"))
    assert 'softprompt embed FOLDER "your input"' in card and 'tuned.encode("your input")' in card
