"""Findings on a run that was really trained: what training records, and what `inspect` says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from softprompt.artifacts import artifact as artifacts
from softprompt.config.load import recipe_from_dict
from softprompt.evaluation.diagnostics import examine
from softprompt.evaluation.diagnostics.gather import run_of, with_tfidf
from softprompt.training.prepare import prepare
from softprompt.training.tune import Hooks, Interrupted, tune


def project(folder: Path, **train) -> dict:
    rows = [
        {"input": f"{word} {i}", "target": ("good", "bad")[i % 2]}
        for i, word in enumerate(["sun", "mud"] * 12)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {
        "model": "tiny",
        "data": {"train": str(folder / "rows.jsonl"), "dev_fraction": 0.3},
        "template": {"input": "Say: {{ input }}"},
        "task": {"kind": "classification", "labels": ["good", "bad"]},
        "method": {"name": "prefix-tuning", "length": 3},
        "train": {"steps": 6, "batch_size": 4, "dtype": "float32", "cache": "ram", **train},
        "output": str(folder / "out"),
    }


def trained(folder: Path, lm, **train):
    return tune(prepare(recipe_from_dict(project(folder, **train)), lm=lm), overwrite=True)


def test_how_far_it_moved_is_the_distance_from_a_fresh_start(tmp_path, new_lm):
    lm = new_lm()
    run = trained(tmp_path, lm, lr=0.1)
    start = prepare(run.prepared.recipe, lm=lm).method
    now, began = (
        torch.cat([p.detach().flatten() for p in m.parameters()]) for m in (run.prepared.method, start)
    )
    expected = ((now - began).norm() / began.norm()).item()
    assert run.artifact.manifest["training"]["moved"] == pytest.approx(expected, rel=1e-5)
    assert expected > 0.01


def test_a_resumed_run_has_moved_from_its_first_start(tmp_path, new_lm):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    expected = trained(whole, new_lm(), lr=0.1).artifact.manifest["training"]["moved"]
    prepared = prepare(recipe_from_dict(project(parts, lr=0.1)), lm=new_lm())
    steps: list[int] = []
    hooks = Hooks(on_event=lambda event: steps.append(event.step), should_stop=lambda: len(steps) >= 3)
    with pytest.raises(Interrupted):
        tune(prepared, hooks=hooks)
    resumed = tune(prepare(prepared.recipe, lm=new_lm()))
    assert resumed.outcome.step == 6
    assert resumed.artifact.manifest["training"]["moved"] == pytest.approx(expected, rel=1e-6)


def test_a_rate_that_is_far_too_small_is_found(tmp_path, new_lm):
    lm = new_lm()
    found = examine(run_of(trained(tmp_path, lm, lr=1e-7).artifact, lm))
    assert any("barely moved" in finding.summary for finding in found)


def test_nothing_trained_but_the_base_has_not_moved_or_stayed(tmp_path, new_lm):
    lm = new_lm()
    recipe = project(tmp_path) | {"method": {"name": "none"}, "base": {"mode": "full"}}
    run = tune(prepare(recipe_from_dict(recipe), lm=lm))
    assert run.artifact.manifest["training"]["moved"] is None


def test_rows_are_read_again_where_they_are_what_they_were(tmp_path, new_lm):
    lm = new_lm()
    opened = artifacts.load(trained(tmp_path, lm).artifact.path)
    run = with_tfidf(run_of(opened, lm))
    assert len(run.train) + len(run.dev) == 24 and len(run.scores) == len(run.dev)
    assert any("TF-IDF" in finding.summary for finding in examine(run))  # the word decides these labels
    (tmp_path / "rows.jsonl").write_text('{"input": "a", "target": "good"}\n', encoding="utf-8")
    assert not run_of(opened, lm).train
    (tmp_path / "rows.jsonl").unlink()
    assert not run_of(opened, lm).train


def test_commands_keep_what_was_given_on_the_command_line(tmp_path, llama):
    command = "softprompt tune r.yaml prompt_field='her voice' steps=6 length=4 --overwrite"
    run = run_of(artifacts.Artifact(tmp_path, {"command": command}), llama)
    kept = "softprompt tune r.yaml 'prompt_field=her voice' length=4 train.steps=12 --overwrite"
    assert run.tune("train.steps=12") == kept
    assert run.search("lr=1,2") == (
        "softprompt search r.yaml 'prompt_field=her voice' steps=6 length=4 --over lr=1,2"
    )
    searched = "softprompt search r.yaml length=4 --over lr=1,2 --over seed=0,1"
    run = run_of(artifacts.Artifact(tmp_path, {"command": searched}), llama)
    assert run.tune("steps=9") == "softprompt tune r.yaml length=4 steps=9 --overwrite"


@pytest.mark.parametrize(
    ("command", "recipe"),
    [
        ("softprompt tune 'my task/r.yaml' lr=1e-2 --overwrite", "'my task/r.yaml'"),
        ("softprompt search r.yml --over lr=1,2", "r.yml"),
        ("script.py --file r.yaml", "RECIPE"),
        ("", "RECIPE"),
    ],
)
def test_commands_name_the_recipe_where_it_is_known(tmp_path, llama, command, recipe):
    made = artifacts.Artifact(tmp_path, {"command": command})
    assert run_of(made, llama).tune("lr=1") == f"softprompt tune {recipe} lr=1 --overwrite"
