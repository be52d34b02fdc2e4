"""`softprompt choose`: a ranking with reasons, recipes that `check` takes, and errors that help."""

from __future__ import annotations

import pytest

from softprompt.compare import experiment
from softprompt.compare.running.executors import Serial
from softprompt.config.load import load_recipe
from softprompt.recommend import pilot

from .conftest import write_rows

pytestmark = pytest.mark.whole


@pytest.fixture
def rows(tmp_path):
    made = [{"input": f"row {i}", "target": ("good", "bad")[i % 2]} for i in range(24)]
    return write_rows(tmp_path / "rows.jsonl", made)


def test_it_ranks_and_names_the_next_command(run, rows, model_folder):
    output = run("choose", "--rows", rows, "--model", model_folder, "--frozen")
    assert output.code == 0
    assert "24 rows, classification of 2 labels" in output.out and "out:\n" in output.out
    assert "  lora " in output.out.split("out:\n")[1]
    assert output.out.endswith(f"next:\n  softprompt choose --rows {rows} --out recipes\n")
    assert "evidence:" not in output.out


def test_why_shows_every_rule_that_applied(run, rows, model_folder):
    output = run("choose", "--rows", rows, "--model", model_folder, "--why", "--unseen")
    found = run("choose", "--rows", rows, "--model", model_folder, "--unseen", "--json").json
    assert len(found["rules"]) > 5 and {rule["name"] for rule in found["rules"]} >= {"unseen inputs, labels"}
    for rule in found["rules"]:
        assert f"  {rule['name']} (" in output.out and rule["evidence"]["figures"] in output.out
    fired = {name for item in found["ranked"] for part in ("for", "against", "notes") for name in item[part]}
    assert fired | {item["rule"] for item in found["excluded"]} == {rule["name"] for rule in found["rules"]}


def test_the_recipes_it_writes_are_accepted_by_check(run, rows, model_folder, tmp_path):
    found = run("choose", "--rows", rows, "--model", model_folder, "--out", tmp_path / "out", "--json").json
    assert len(found["recipes"]) == 3 and found["next"] == f"softprompt check {found['recipes'][0]}"
    for recipe in found["recipes"]:
        output = run("check", recipe, "train.dtype=float32")
        assert output.code == 0, output.err


def test_rows_of_an_embedding_task_get_recipes_of_one(run, model_folder, bert_folder, tmp_path):
    pairs = [{"query": f"w{i}", "positive": f"w{i} w{i + 1}", "negatives": ["w90"]} for i in range(24)]
    rows = write_rows(tmp_path / "pairs.jsonl", pairs)
    for model, pooling in ((bert_folder, None), (model_folder, "last")):
        found = run("choose", "--rows", rows, "--model", model, "--out", tmp_path / "out", "--json").json
        assert found["needs"]["kind"] == "embedding" and found["template"]["kind"] == "embedding"
        recipe = load_recipe(found["recipes"][0])
        assert (recipe.task.kind, recipe.task.pooling) == ("embedding", pooling)
        output = run("check", found["recipes"][0], "train.dtype=float32")
        assert output.code == 0, output.err
    out = {item["name"] for item in found["excluded"]}
    assert "few-shot" in out and not [item for item in found["ranked"] if item["name"] in out]


def test_limits_are_read_and_kept_to(run, rows, model_folder):
    tight = run(
        "choose", "--rows", rows, "--model", model_folder, "--memory", "90kB", "--tasks", "200", "--json"
    )
    out = {item["name"] for item in tight.json["excluded"] if item["rule"] == "does not fit the memory"}
    assert "prefix-tuning/after" in out
    for option, value in (
        ("--memory", "8"),
        ("--memory", "big"),
        ("--latency", "0ms"),
        ("--pilot", "10 parsecs"),
    ):
        output = run("choose", "--rows", rows, "--model", model_folder, option, value)
        assert output.code == 1 and f"error: {option} {value}: not understood" in output.err


def test_rows_without_the_fields_are_reported_before_a_model_is_loaded(run, tmp_path):
    path = write_rows(tmp_path / "odd.jsonl", [{"one": "a", "two": "b", "three": "c"}] * 3)
    output = run("choose", "--rows", path, "--model", "no/such/model")
    assert output.code == 1 and "one, two, three" in output.err and "--input '{{ one }}'" in output.err
    output = run(
        "choose", "--rows", path, "--model", "no/such/model", "--input", "{{ nine }}", "--target", "x"
    )
    assert output.code == 1 and "'nine'" in output.err and "loading" not in output.err


def test_fields_are_inferred_and_shown(run, tmp_path, model_folder):
    made = [{"question": f"what {i}", "answer": ("yes", "no")[i % 2]} for i in range(24)]
    path = write_rows(tmp_path / "rows.jsonl", made)
    output = run("choose", "--rows", path, "--model", model_folder)
    assert output.code == 0 and "{{ question }}⏎Answer:" in output.out and "classification of 2" in output.out


def test_a_pilot_ranks_by_what_it_measured(run, rows, model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiment, "executor", lambda kind, workers, threads: Serial())
    levels = {"train.steps": (2, 1), "rates": (1,), "methods": (3, 2)}
    monkeypatch.setattr(pilot, "LEVELS", {**pilot.LEVELS, **levels})
    options = ("--model", model_folder, "--pilot", "5m", "--out", "out")
    output = run("choose", "--rows", rows, *options, "--json")
    assert output.code == 0, output.err
    found = output.json["pilot"]
    assert found["folder"] == "runs/rows-pilot"
    order = [trial["contestant"] for trial in found["order"]]
    assert [item["name"] for item in output.json["ranked"]][: len(order)] == order
    trained = [trial for trial in found["order"] if trial["settings"]]
    assert trained and output.json["next"] == f"softprompt tune {output.json['recipes'][0]}"
    best = load_recipe(output.json["recipes"][0])
    assert {"train.lr": best.train.lr, "base.lr": best.base.lr}.items() >= trained[0]["settings"].items()
    ended = [trial for trial in found["order"] if not trial["error"]]
    assert len(list((tmp_path / "runs/rows-pilot/trials").glob("*.json"))) >= len(ended) > 0
    shown = run("choose", "--rows", rows, *options)  # nothing is run again
    assert f"\n  {found['answer']['headline']}\n" in shown.out
    assert "measured in" in shown.out and "not tried, for want of time" in shown.out
    assert "optimistic" in shown.out and "accuracy" in shown.out
    assert f" {trained[0]['steps']} steps" in shown.out


def test_a_pilot_without_time_is_refused(run, rows, model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output = run("choose", "--rows", rows, "--model", model_folder, "--pilot", "2s")
    assert output.code == 1 and "too short" in output.err and "--pilot 1m" in output.err
    assert not (tmp_path / "runs").exists()
