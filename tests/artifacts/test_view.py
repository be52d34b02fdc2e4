"""A tuned prompt in a notebook: its table and its curves, compared with the files that the run wrote."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest

import softprompt
from softprompt.artifacts.artifact import Artifact
from softprompt.errors import SoftPromptError

matplotlib.use("agg")
ROWS = [{"input": word, "target": ("good", "bad")[i % 2]} for i, word in enumerate(["sun", "mud", "ox"] * 8)]


@pytest.fixture(scope="module")
def tuned(model_folder, tmp_path_factory):
    lm = softprompt.load(str(model_folder), dtype="float32")
    output = tmp_path_factory.mktemp("view") / "run"
    return softprompt.tune(
        lm, "prompt-tuning", ROWS, task="classification", output=output, length=2, steps=6, batch_size=4,
        eval_every=2,
    )  # fmt: skip


def drawn(axes) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): [tuple(map(float, p)) for p in line.get_xydata()] for line in axes.get_lines()}


@pytest.mark.parametrize("is_opened", [False, True])
def test_the_curves_are_those_of_the_run(tuned, is_opened):
    folder = tuned.artifact.path
    prompt = softprompt.open_prompt(folder, tuned.lm) if is_opened else tuned
    loss, score = prompt.plot_training()
    assert loss.figure is score.figure
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    (losses,) = drawn(loss).values()
    assert losses == [(step["step"], pytest.approx(step["loss"])) for step in steps] and len(losses) == 6
    manifest = json.loads((folder / "softprompt.json").read_text())
    curves, best = drawn(score), manifest["training"]["best_step"]
    dev = [(step["step"], pytest.approx(100 * step["dev"]["accuracy"])) for step in steps if "dev" in step]
    assert curves["tuned"] == dev and [step for step, _ in dev] == [2, 4, 6]
    assert curves[f"best, step {best}"][0] == next(point for point in dev if point[0] == best)
    plain = 100 * manifest["plain"]["metrics"]["accuracy"]
    assert [y for _, y in curves["plain model"]] == pytest.approx([plain, plain])


def test_without_the_journal_of_the_same_run_the_losses_are_the_manifests(tuned, tmp_path):
    manifest = tuned.artifact.manifest
    history = [(entry["step"], pytest.approx(entry["loss"])) for entry in manifest["training"]["history"]]
    other = {**manifest, "data": {**manifest["data"], "rows": 1}}
    for artifact in (Artifact(tmp_path, manifest), replace(tuned.artifact, manifest=other)):
        loss, _ = replace(tuned, artifact=artifact).plot_training()
        assert [*drawn(loss).values()] == [history]


def test_a_prompt_without_a_recorded_training_says_so(tuned, tmp_path):
    composed = softprompt.scale(tuned.artifact.path, 0.5, tmp_path / "half", tuned.lm)
    with pytest.raises(SoftPromptError, match="holds no training to plot") as error:
        composed.plot_training()
    assert "composed" in error.value.why and "tune" in error.value.fix
    assert "<table>" not in composed._repr_html_()  # nothing was scored
    assert repr(composed) == f"Tuned(composition on {tuned.lm.name}, {tmp_path / 'half'})"


def test_a_missing_matplotlib_is_one_error(tuned, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    with pytest.raises(SoftPromptError, match="plots need matplotlib") as error:
        tuned.plot_training()
    assert error.value.fix == "pip install 'softprompt[plot]'"


def test_the_table_has_the_scores_and_escapes_names(tuned):
    page = tuned._repr_html_()
    dev, plain = (tuned.artifact.manifest[part]["metrics"]["accuracy"] for part in ("dev", "plain"))
    row = page.split("<tr><td>accuracy</td>")[1].split("</tr>")[0]
    assert row.index(f"{100 * dev:.1f}\u00a0%") < row.rindex(f"{100 * plain:.1f}\u00a0%")
    named = {**tuned.artifact.manifest, "prompts": ["<b>", "a & b"]}
    page = replace(tuned, artifact=Artifact(Path("runs/<i>"), named))._repr_html_()
    assert "2 prompts: &lt;b&gt;, a &amp; b" in page and "<b>" not in page and "runs/&lt;i&gt;" in page
    assert len(repr(tuned)) < 300 and str(tuned.artifact.path) in repr(tuned)
