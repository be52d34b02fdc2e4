"""Several texts become prompts of one table, or apart, and are measured alone and attached together."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

import softprompt
from softprompt.cli import main
from softprompt.cli.distill_several import report_text
from softprompt.config.load import recipe_from_dict
from softprompt.distillation import answers, effect
from softprompt.distillation.texts import are_several, texts_of
from softprompt.errors import SoftPromptError

TEXTS = {"a": "say it backwards, please, and loud", "b": "BE VERY SHORT", "c": "zzz 1 2 3 zzz"}
WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss", "tree", "fog"]
SETTINGS = {"steps": 4, "batch_size": 4, "lr": 0.05, "dtype": "float32", "max_new_tokens": 6}


@pytest.fixture
def answered(tmp_path, monkeypatch):
    """The teachers' answers are there: a random model ends its answers too rarely for a small test."""
    monkeypatch.setattr(answers, "_identity", lambda recipe, lm: "same")
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    for name in TEXTS:
        folder = tmp_path / "out-distill" / name
        folder.mkdir(parents=True)
        rows = [{"request": w, "answer": f"{name} {w[::-1]}", "teacher": "same"} for w in WORDS]
        (folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("apart", [False, True])
def test_texts_become_prompts_and_are_measured_together(model_folder, answered, apart):
    lm = softprompt.load(str(model_folder), dtype="float32")
    more = {"apart": True} if apart else {"together": True}
    result = softprompt.distill(lm, TEXTS, WORDS, vectors=4, output=answered / "out", **more, **SETTINGS)
    assert set(result.shares) == set(TEXTS) and set(result.at_once) == {1, 2}
    assert result.attached.share_with(1) == result.at_once[1]
    assert all(run.prepared.keep is not None for run in result.runs)  # general text, as with one text
    with pytest.raises(SoftPromptError, match="4 prompts cannot be attached"):
        result.attached.share_with(4)
    saved = json.loads((answered / "out-distill" / "distill.json").read_text())
    assert saved == json.loads(json.dumps(result.report()))
    # each row's own text is ahead of it: that is its teacher
    assert {"text", "vectors", "2 prompts attached", "no text"} == set(saved["ways"])
    for ways in (saved["ways"], *saved["by_text"].values()):
        assert ways["text"]["metrics"]["kl"] == pytest.approx(0, abs=1e-5)
        assert ways["no text"]["metrics"]["kl"] > 0.01 and 0 <= ways["vectors"]["metrics"]["chrf"] <= 100
    kl = {name: way["metrics"]["kl"] for name, way in saved["ways"].items()}
    assert saved["at_once"]["2"][0] == pytest.approx(1 - kl["2 prompts attached"] / kl["no text"])
    # free answers are those of the saved prompt
    sample = saved["samples"][0]
    first = softprompt.open_prompt(answered / "out" / "a" if apart else answered / "out", lm)
    asked = {"request": sample["request"].removesuffix(" (a)")}
    assert first.generate(asked, **({} if apart else {"prompt": "a"})) == sample["vectors"]
    assert f"{saved['ways']['vectors']['metrics']['chrf']:.1f}" in result._repr_html_()
    command = next(line for line in report_text(result).splitlines() if "softprompt report" in line)
    assert main(shlex.split(command)[1:-1]) == 0 and (answered / "out-distill/report.html").exists()
    spaced = [replace(run, artifact=replace(run.artifact, path=Path("my docs"))) for run in result.runs]
    lines = report_text(replace(result, runs=tuple(spaced))).splitlines()
    (command,) = (line for line in lines if "softprompt generate" in line)
    assert shlex.split(command)[2] == "my docs"
    # attached by `compose`, they are the very prompts that were measured
    names = [answered / "out" / n for n in "ab"] if apart else [f"{answered / 'out'}:{n}" for n in "ab"]
    both = softprompt.concatenate(names, answered / "both", lm)
    assert both.artifact.manifest["options"]["length"] == 7


def test_texts_from_files_folders_and_tables(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("a.md", "more/a.md", "more/b.txt"):
        (tmp_path / name).write_text("text")
    rows = [{"name": "c", "text": "x"}, {"name": "d", "text": "y"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert list(texts_of([tmp_path / "more", tmp_path / "t.jsonl"])) == ["a", "b", "c", "d"]
    with pytest.raises(SoftPromptError, match="two texts are called 'a'"):
        texts_of([tmp_path / "a.md", tmp_path / "more"])
    (tmp_path / "t.jsonl").write_text('{"name": "c", "body": "x"}')
    with pytest.raises(SoftPromptError, match="no text"):
        texts_of([tmp_path / "t.jsonl"])


def test_files_of_any_spelling_are_texts_or_tables(tmp_path):
    """Else a table is distilled as one text, and a folder of `.TXT` files has none."""
    assert are_several([tmp_path / "rows.CSV"]) and are_several([tmp_path / "rows.ndjson"])
    for name in ("A.TXT", "b.md", ".hidden.md"):
        (tmp_path / name).write_text("be loud")
    (tmp_path / "folder.md").mkdir()
    assert list(texts_of([tmp_path])) == ["A", "b"]


def test_the_command(model_folder, answered, capsys):
    files = []
    for name, text in TEXTS.items():
        (answered / f"{name}.txt").write_text(text)
        files += ["--system", str(answered / f"{name}.txt")]
    (answered / "r.jsonl").write_text("\n".join(json.dumps({"request": word}) for word in WORDS))
    settings = [
        f"model={model_folder}",
        f"output={answered / 'out'}",
        "--vectors",
        "3",
        "template.chat=false",
    ]
    settings += [
        "template.chat=false",
        "steps=2",
        "batch_size=4",
        "dtype=float32",
        "max_new_tokens=6",
        "--together",
    ]
    assert main(["distill", *files, "--requests", str(answered / "r.jsonl"), *settings]) == 0
    out = capsys.readouterr().out
    recorded = recipe_from_dict(json.loads((answered / "out" / "softprompt.json").read_text())["recipe"])
    hashes = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in TEXTS.items()}
    assert {name: text.sha256 for name, text in recorded.teacher.texts.items()} == hashes
    assert "attached at once" in out and f"{answered / 'out'}:a" in out
    assert main(["distill", *files[:2], *settings]) == 1
    assert "--together is given with one text" in capsys.readouterr().err


def test_a_text_among_several_that_changes_nothing_is_named(model_folder, answered, monkeypatch):
    lm = softprompt.load(str(model_folder), dtype="float32")
    monkeypatch.setattr(effect, "LEAST_EFFECT", 1e9)
    with pytest.raises(SoftPromptError, match="effect of the text 'a' is within noise"):
        softprompt.distill(lm, TEXTS, WORDS, vectors=4, output=answered / "out", **SETTINGS)


def test_several_texts_on_a_model_without_prefixes_become_soft_tokens(model_folder, answered):
    lm = softprompt.load(str(model_folder), dtype="float32")
    lm.spec = replace(lm.spec, limits={**lm.spec.limits, "prefix": "its attention is its own"})
    result = softprompt.distill(lm, TEXTS, WORDS, vectors=3, output=answered / "out", **SETTINGS)
    assert result.report()["method"] == "prompt-tuning" and set(result.shares) == set(TEXTS)
