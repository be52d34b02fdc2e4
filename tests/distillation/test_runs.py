"""The runs of a distillation: which are used again, which one is kept, and what all calls together took."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import softprompt
from softprompt.artifacts import manifest as manifests
from softprompt.cli import main
from softprompt.cli.distilled import report_text
from softprompt.distillation import answers, elapsed, output
from softprompt.distillation import run as running
from softprompt.distillation.elapsed import Elapsed
from softprompt.errors import SoftPromptError
from softprompt.methods.materialised import materialise
from softprompt.training.prepare import prepare
from softprompt.training.tune import Hooks, Interrupted

TEXT = "say it backwards, please, and loud"
WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss", "tree", "fog"]
SETTINGS = {"steps": 3, "batch_size": 4, "lr": 0.05, "dtype": "float32", "max_new_tokens": 6, "vectors": 4}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The teacher's answers are there: a random model ends its answers too rarely for a small test."""
    monkeypatch.setattr(answers, "_identity", lambda recipe, lm: "same")
    monkeypatch.setenv("SOFTPROMPT_CACHE", str(tmp_path / "cache"))
    rows = [{"request": word, "answer": word[::-1], "teacher": "same"} for word in WORDS]
    (tmp_path / "out-distill").mkdir()
    (tmp_path / "out-distill/requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def _kept_seed(folder: Path) -> int:
    return json.loads((folder / "softprompt.json").read_text())["identity"]["settings"]["train.seed"]


def test_seeds_that_exist_are_used_and_another_is_kept_with_a_note(model_folder, place, monkeypatch):
    notes: list[str] = []
    monkeypatch.setattr(output, "note", notes.append)
    lm = softprompt.load(str(model_folder), dtype="float32")
    out = place / "out"

    def distill(seeds, **more):
        return softprompt.distill(lm, TEXT, WORDS, seeds=seeds, output=out, **SETTINGS | more)

    first = distill(1)
    assert first.comparison.seeds == (0,) == (_kept_seed(out),)
    before = (out / "prompt.safetensors").read_bytes()
    (place / "out-distill/seed-0").rename(place / "earlier")  # as earlier versions left it
    three = distill(3)
    kept = _kept_seed(out)
    finished = {run.prepared.recipe.train.seed: run.was_finished for run in three.runs}
    assert finished == {0: True, 1: False, 2: False} and three.comparison.seeds[0] == kept
    assert len(notes) == (kept != 0) and all(
        f"now holds the vectors of train.seed={kept}" in text for text in notes
    )
    assert (place / "out-distill/seed-0/prompt.safetensors").read_bytes() == before
    for seeds in (1, 2):  # none is trained again, and none is refused
        again = distill(seeds)
        assert all(run.was_finished for run in again.runs)
        assert _kept_seed(out) == again.comparison.seeds[0]
        assert softprompt.open_prompt(out, lm).artifact.manifest["recipe"]["output"] == str(out)
    with pytest.raises(SoftPromptError, match="already holds a tuned prompt"):
        distill(2, lr=0.01)
    with pytest.raises(SoftPromptError, match="already holds a tuned prompt"):
        softprompt.distill(lm, TEXT, WORDS[:9], seeds=1, output=out, **SETTINGS | {"seed": 7})
    assert _kept_seed(out) == again.comparison.seeds[0]


def test_seeds_of_a_recipe_that_was_replaced_are_not_in_the_way(model_folder, place):
    lm = softprompt.load(str(model_folder), dtype="float32")
    options = {"output": place / "out", **SETTINGS}
    softprompt.distill(lm, TEXT, WORDS, seeds=2, **options)
    softprompt.distill(lm, TEXT, WORDS, seeds=1, overwrite=True, **options | {"lr": 0.01})
    assert not (place / "out-distill/seed-1").exists()
    two = softprompt.distill(lm, TEXT, WORDS, seeds=2, **options | {"lr": 0.01})
    finished = {run.prepared.recipe.train.seed: run.was_finished for run in two.runs}
    assert finished == {0: True, 1: False}
    # of an earlier version, which recorded fewer settings
    file = place / "out-distill/seed-1/softprompt.json"
    manifest = manifests.read(file)
    del manifest["identity"]["settings"]["train.average"]
    file.write_text(manifests.text_of(manifest), encoding="utf-8")
    softprompt.distill(lm, TEXT, WORDS, seeds=1, overwrite=True, **options | {"lr": 0.01})
    assert file.exists()


def test_the_seconds_of_all_calls_count(model_folder, place, monkeypatch):
    lm = softprompt.load(str(model_folder), dtype="float32")
    options = {"output": place / "out", "seeds": 1, **SETTINGS}
    with pytest.raises(Interrupted):
        softprompt.distill(lm, TEXT, WORDS, hooks=Hooks(should_stop=lambda: True), **options)
    file = place / "out-distill" / "elapsed.json"
    (run, seconds), *_ = json.loads(file.read_text()).items()
    assert seconds > 0
    file.write_text(json.dumps({run: seconds + 1000}))
    result = softprompt.distill(lm, TEXT, WORDS, **options)
    assert 1000 + seconds < result.comparison.seconds < 2000
    assert result.comparison.paid_after is None or result.comparison.paid_after > 1000
    # a call that trains nothing adds nothing, and another run begins anew
    assert softprompt.distill(lm, TEXT, WORDS, **options).comparison.seconds == result.comparison.seconds
    assert json.loads(file.read_text())[run] == pytest.approx(result.comparison.seconds)
    again = softprompt.distill(lm, TEXT, WORDS, overwrite=True, **options)
    assert again.comparison.seconds < 1000


def _later(file: Path, seconds: float = 1000) -> None:
    """Add seconds to those that the file holds, as if the calls before had taken longer."""
    known = json.loads(file.read_text())
    changed = {k: v if k == elapsed.FINISHED else v + seconds for k, v in known.items()}
    file.write_text(json.dumps(changed))


def test_seconds_of_a_run_that_replaces_another(model_folder, place):
    """With --overwrite, an interrupted run counts its own earlier call, and not the run that it replaces."""
    lm = softprompt.load(str(model_folder), dtype="float32")
    file, stop = place / "out-distill" / "elapsed.json", Hooks(should_stop=lambda: True)

    def distill(**more):
        return softprompt.distill(lm, TEXT, WORDS, output=place / "out", seeds=1, **SETTINGS | more)

    distill()
    _later(file, 50_000)
    with pytest.raises(Interrupted):
        distill(lr=0.01, overwrite=True, hooks=stop)
    _later(file)
    assert 1000 < distill(lr=0.01, overwrite=True).comparison.seconds < 2000
    assert distill(lr=0.01, overwrite=True).comparison.seconds < 1000


def test_a_refused_call_leaves_the_seconds_of_the_run_that_is_there(model_folder, place):
    lm = softprompt.load(str(model_folder), dtype="float32")
    options = {"output": place / "out", "seeds": 1, **SETTINGS}
    with pytest.raises(Interrupted):
        softprompt.distill(lm, TEXT, WORDS, hooks=Hooks(should_stop=lambda: True), **options)
    _later(place / "out-distill" / "elapsed.json")
    with pytest.raises(SoftPromptError, match="holds another unfinished run"):
        softprompt.distill(lm, TEXT, WORDS, **options | {"lr": 0.01})
    assert 1000 < softprompt.distill(lm, TEXT, WORDS, **options).comparison.seconds < 2000
    before = (place / "out-distill" / "elapsed.json").read_bytes()
    with pytest.raises(SoftPromptError, match="already holds a tuned prompt"):
        softprompt.distill(lm, TEXT, WORDS, **options | {"lr": 0.01})
    assert (place / "out-distill" / "elapsed.json").read_bytes() == before


def test_seconds_of_more_seeds_whose_measuring_was_interrupted(model_folder, place, monkeypatch):
    """The report of the one seed before does not say how long three took."""
    lm = softprompt.load(str(model_folder), dtype="float32")
    options = {"output": place / "out", **SETTINGS}

    def interrupt(*args, **how):
        raise KeyboardInterrupt

    softprompt.distill(lm, TEXT, WORDS, seeds=1, **options)
    _later(place / "out-distill" / "elapsed.json")
    with monkeypatch.context() as patch:
        patch.setattr(running, "measure", interrupt)
        with pytest.raises(KeyboardInterrupt):
            softprompt.distill(lm, TEXT, WORDS, seeds=3, **options)
    result = softprompt.distill(lm, TEXT, WORDS, seeds=3, **options)
    assert result.run.was_finished and result.comparison.seconds > 1000


def test_seconds_are_written_while_the_work_goes_on(model_folder, place, monkeypatch):
    monkeypatch.setattr(elapsed, "EVERY", 0.01)
    lm = softprompt.load(str(model_folder), dtype="float32")
    recipe = softprompt.distill(
        lm, TEXT, WORDS, output=place / "out", seeds=1, **SETTINGS
    ).run.prepared.recipe
    recipe = recipe.model_copy(update={"output": str(place / "other")})
    (place / "other-distill").mkdir()
    file = place / "other-distill" / "elapsed.json"
    with Elapsed(file.parent, recipe, restart=False, overwrite=False):
        while not file.exists():  # a killed process leaves it like this
            pass
        written = json.loads(file.read_text())
    assert list(json.loads(file.read_text())) == list(written)
    with Elapsed(file.parent, recipe, restart=False, overwrite=False) as again:
        assert again.before > 0
    with Elapsed(file.parent, recipe, restart=True, overwrite=False) as again:
        assert again.before == 0


def test_a_text_that_changes_during_the_run_is_read_once(model_folder, place):
    lm = softprompt.load(str(model_folder), dtype="float32")
    file, reads = place / "system.txt", []
    file.write_text(TEXT)

    def stage(text):
        reads.append(text)
        file.write_text("BE SHORT")

    hooks = Hooks(on_stage=stage)
    result = softprompt.distill(lm, file, WORDS, output=place / "out", seeds=1, hooks=hooks, **SETTINGS)
    shutil.copytree(place / "out-distill", place / "direct-distill")
    direct = softprompt.distill(lm, TEXT, WORDS, output=place / "direct", seeds=1, **SETTINGS)
    assert reads and result.comparison.text_tokens == direct.comparison.text_tokens
    assert result.comparison.ways["no text"]["metrics"] == direct.comparison.ways["no text"]["metrics"]
    recorded = [r.run.artifact.manifest["recipe"]["teacher"] for r in (result, direct)]
    assert recorded[0]["sha256"] == recorded[1]["sha256"] and recorded[0]["context"] is None
    assert recorded[0]["file"] == str(file)
    assert (result.run.prepared.identity()["settings"]["teacher.context"]) == recorded[0]["sha256"]


def test_a_start_is_measured_without_a_step(model_folder, place):
    """With no step, the saved vectors are the match of the text that `prepare` makes."""
    lm = softprompt.load(str(model_folder), dtype="float32")
    options = SETTINGS | {"steps": 0, "init": "matched", "output": place / "out", "seeds": 1}
    result = softprompt.distill(lm, TEXT, WORDS, **options)
    rows = [example.rendered.row for example in result.run.prepared.train]
    fresh = materialise(prepare(result.run.prepared.recipe, lm=lm, rows=rows, dev_rows=rows[:2]).method)
    saved = materialise(softprompt.open_prompt(place / "out", lm).method)
    assert fresh is not None and saved is not None
    layers = [method.prompts[0].kv_before.layers for method in (fresh, saved)]
    for one, other in zip(*layers, strict=True):
        torch.testing.assert_close(one.key, other.key)
    assert result.comparison.start_seconds > 0 and result.run.outcome.step == 0
    assert "and not trained" in report_text(result)
    assert repr(result).splitlines()[0] == report_text(result).splitlines()[0]
    assert softprompt.distill(lm, TEXT, WORDS, **options).run.was_finished
    assert main(["report", str(place / "out")]) == 0
    with pytest.raises(SoftPromptError, match="trains nothing"):
        softprompt.tune(lm, "prompt-tuning", [{"input": "a", "target": "b"}] * 4, steps=0)
