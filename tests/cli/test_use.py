"""`eval`, `generate` and `inspect` on a tuned prompt."""

from __future__ import annotations

import io
import json
import sys

import pytest

from softprompt.artifacts.artifact import load

from .conftest import write_rows


@pytest.fixture
def data(tuned):
    return tuned.parent / "dev.jsonl"


def test_eval_json_has_metrics_intervals_and_n(run, tuned, data):
    found = run("eval", tuned, "--data", data, "--json").json
    dev = load(tuned).manifest["dev"]
    assert found["metrics"] == pytest.approx(dev["metrics"]) and found["n"] == 4
    assert found["intervals"] == {name: pytest.approx(pair) for name, pair in dev["intervals"].items()}
    assert found["what"] == "prompt-tuning"


def test_eval_text(run, tuned, data):
    message = run("eval", tuned, "--data", data)
    assert message.code == 0 and message.out.startswith(
        "prompt-tuning: 4 rows (with 95 % intervals)\n  accuracy  "
    )


def test_eval_plain_is_the_plain_model_of_tune(run, tuned, data):
    found = run("eval", tuned, "--data", data, "--plain", "--json").json
    assert found["what"] == "plain model"
    assert found["metrics"] == pytest.approx(load(tuned).manifest["plain"]["metrics"])


def test_eval_shots_limit_and_records(run, tuned, data, tmp_path):
    records = tmp_path / "deep" / "records.jsonl"
    found = run(
        "eval", tuned, "--data", data, "--shots", 2, "--limit", 3, "--records", records, "--json"
    ).json
    assert found["what"] == "few-shot (2)" and found["n"] == 3 and found["records"] == str(records)
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    assert len(rows) == 3 and all(set(row["scores"]) == {"good", "bad"} for row in rows)
    right = sum(row["prediction"] == row["references"][0] for row in rows) / 3
    assert right == pytest.approx(found["metrics"]["accuracy"])
    assert rows[0]["row"].startswith("dev.jsonl:") and rows[0]["input"].startswith("Say: ")


def test_eval_too_many_shots_are_refused(run, tuned, data):
    message = run("eval", tuned, "--data", data, "--shots", 13)
    assert (
        message.code == 1
        and "4 of 4 rows cannot be used" in message.err
        and "show 12 or fewer" in message.err
    )


def test_a_base_trained_alone_is_an_artifact_like_any(run, recipe, tmp_path):
    found = run("tune", recipe, "method=none", "base=lora", "base.lr=0.05", "--json").json
    again = run("eval", tmp_path / "out", "--data", tmp_path / "dev.jsonl", "--json").json
    assert again["metrics"] == pytest.approx(found["metrics"])
    plain = run("eval", tmp_path / "out", "--data", tmp_path / "dev.jsonl", "--plain", "--json").json
    assert plain["metrics"] == pytest.approx(found["plain"]["metrics"])
    assert "holds no vectors" in run("inspect", tmp_path / "out").out


def test_eval_rows_without_a_prompt_take_the_one_named(run, chatty, tmp_path):
    rows = [{"input": "sun", "target": "good"}, {"input": "mud", "target": "bad"}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    records = tmp_path / "records.jsonl"
    message = run("eval", chatty, "--data", data, "--prompt", "fact", "--records", records, "--json")
    assert message.code == 0 and set(message.json["metrics"]) == {"perplexity", "chrf", "rouge_l"}
    assert [json.loads(line)["prompt"] for line in records.read_text().splitlines()] == ["fact", "fact"]
    message = run("eval", chatty, "--data", data)
    assert (
        message.code == 1 and "holds 2 prompts: joke, fact" in message.err and "--prompt joke" in message.err
    )
    message = run("eval", chatty, "--data", chatty.parent / "dev.jsonl", "--prompt", "fact", "--limit", 1)
    assert message.code == 0 and "no effect" in message.err


def test_generate_one_text(run, tuned, chatty):
    assert run("generate", tuned, "sun").out.strip() in ("good", "bad")
    found = run("generate", chatty, "sun", "--prompt", "joke", "--max-new-tokens", 3, "--json").json
    assert found["prompt"] == "joke" and len(found["outputs"]) == 1 and len(found["outputs"][0]) <= 3


def test_generate_unknown_prompt_names_the_nearest(run, chatty):
    message = run("generate", chatty, "sun", "--prompt", "jokes")
    assert message.code == 1 and "did you mean 'joke'?" in message.err
    message = run("generate", chatty, "sun")
    assert message.code == 1 and "no name was given to choose among them" in message.err


def test_generate_from_files_and_stdin(run, chatty, tmp_path, monkeypatch):
    lines = tmp_path / "inputs.txt"
    lines.write_text("sun\n\nmud and cake\n")
    message = run("generate", chatty, "--file", lines, "--prompt", "fact")
    assert message.code == 0 and message.out.count("\n") == 3  # one answer a line, whatever it holds
    alone = run("generate", chatty, "mud and cake", "--prompt", "fact", "--json").json["outputs"]
    assert run("generate", chatty, "--file", lines, "--prompt", "fact", "--json").json["outputs"][2:] == alone
    monkeypatch.setattr(sys, "stdin", io.StringIO("sun\n\nmud and cake\n"))
    assert run("generate", chatty, "--file", "-", "--prompt", "fact").out == message.out
    rows = [{"input": "sun", "style": "joke"}, {"input": "sun", "style": "fact"}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    mixed = run("generate", chatty, "--file", data, "--json").json["outputs"]
    single = [
        run("generate", chatty, "sun", "--prompt", name, "--json").json["outputs"][0]
        for name in ("joke", "fact")
    ]
    assert mixed == single
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(row) + "\n" for row in rows)))
    assert run("generate", chatty, "--file", "-", "--json").json["outputs"] == single


def test_generate_draws_are_seeded(run, chatty):
    def draw(seed):
        words = ["generate", chatty, "sun", "--prompt", "joke", "--temperature", 2.0, "--json"]
        return run(*words, "--max-new-tokens", 12, "--seed", seed).json["outputs"]

    assert draw(1) == draw(1)
    assert any(draw(seed) != draw(1) for seed in (2, 3, 4))


def test_generate_streams_to_a_terminal(run, chatty, monkeypatch):
    from softprompt.cli import generate

    whole = run("generate", chatty, "sun", "--prompt", "joke").out
    monkeypatch.setattr(generate.sys.stdout, "isatty", lambda: True, raising=False)
    assert run("generate", chatty, "sun", "--prompt", "joke").out.strip() == whole.strip()


def test_generate_plain_leaves_the_prompt_out(run, chatty):
    words = ["generate", chatty, "sun", "--prompt", "joke", "--max-new-tokens", 20]
    assert run(*words, "--plain").out != run(*words).out


def test_generate_empty_or_missing_input_is_refused(run, chatty, tmp_path, monkeypatch):
    (tmp_path / "empty.txt").write_text("\n")
    assert "no inputs" in run("generate", chatty, "--file", tmp_path / "empty.txt").err
    assert "cannot read" in run("generate", chatty, "--file", tmp_path / "none.txt").err
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"input": "a"}\nplain\n'))
    assert "standard input:2: broken JSON" in run("generate", chatty, "--file", "-").err


def test_inspect_text_and_json(run, tuned, chatty):
    message = run("inspect", tuned, "--top", 2)
    assert message.code == 0 and "nearest by cosine" in message.out and "moved" in message.out
    found = run("inspect", tuned, "--top", 2, "--json").json
    vectors = found["prompts"][0]["soft"]["after"]
    assert len(vectors) == 3 and len(vectors[0]["by_cosine"]) == 2 and vectors[0]["moved"] > 0
    assert found["similarity"] is None and found["no_start"] is None
    message = run("inspect", chatty, "--prompt", "fact")
    assert (
        "prompt 'fact'" in message.out and "prompt 'joke'" not in message.out and "similarity" in message.out
    )
    assert run("inspect", chatty, "--prompt", "fcat").code == 1


def test_inspect_tells_what_the_run_shows(run, tuned):
    findings = run("inspect", tuned, "--json").json["findings"]
    assert findings and all({"level", "what", "evidence", "command", "splits"} == set(f) for f in findings)
    message = run("inspect", tuned).out.split("findings:\n")[1]
    assert all(f["what"] in message and f["evidence"] in message for f in findings)


@pytest.fixture(scope="module")
def penalised(tmp_path_factory, model_folder):
    """A tuned prompt on a base whose checkpoint ships a penalty that changes every answer."""
    import shutil

    import softprompt

    folder = tmp_path_factory.mktemp("penalised")
    shutil.copytree(model_folder, folder / "base")
    settings = {"repetition_penalty": 50.0, "do_sample": True, "max_length": 4, "_from_model_config": False}
    (folder / "base" / "generation_config.json").write_text(json.dumps(settings))
    rows = [{"input": f"row {i}", "target": "good"} for i in range(8)]
    task = {"kind": "generation", "max_new_tokens": 12}
    tuned = softprompt.tune(
        str(folder / "base"), "prompt-tuning", rows, output=str(folder / "out"), task=task, steps=1,
        options={"length": 2}, dtype="float32",
    )  # fmt: skip
    return tuned


def test_settings_of_the_checkpoint_count_if_asked_for(run, penalised):
    text, folder = "ababab", penalised.artifact.path

    def answer(*more):
        return run("generate", folder, text, "--json", *more).json["outputs"]

    bare = answer()
    assert bare == [penalised.generate(text)]
    asked = answer("--option", "repetition_penalty=50.0")
    assert asked != bare and asked == [penalised.generate(text, repetition_penalty=50.0)]
    own = answer("--checkpoint-settings", "--option", "max_length=30", "--option", "do_sample=false")
    assert own == [penalised.generate(text, repetition_penalty=50.0, max_length=30)]
    message = run("generate", folder, text, "--option", "repetition_penalt=2")
    assert (
        message.code == 1
        and "did you mean 'repetition_penalty'" in message.err
        and "loading" not in message.err
    )


def test_a_text_that_begins_with_a_dash(run, penalised):
    message = run("generate", penalised.artifact.path, "-5 degrees")
    assert message.code == 2 and "-- '-5 degrees'" in message.err
    assert run("generate", penalised.artifact.path, "--", "-5 degrees").code == 0


def test_options_of_generation_are_refused_where_labels_answer(run, tuned):
    message = run("generate", tuned, "nice", "--temperature", "0.5")
    assert message.code == 1 and "takes no generation options" in message.err and "loading" not in message.err


def test_an_unknown_prompt_is_told_before_the_model_is_loaded(run, tuned, data):
    for command in (["generate", tuned, "nice"], ["eval", tuned, "--data", data]):
        message = run(*command, "--prompt", "nobody")
        assert message.code == 1 and "unknown prompt 'nobody'" in message.err and "loading" not in message.err


def test_a_text_that_is_too_long_is_told_with_what_its_user_can_change(run, chatty, tmp_path):
    text = "x" * 250  # 5 are to be written, and 3 are soft tokens: the template takes 5
    message = run("generate", chatty, text, "--prompt", "joke")
    assert message.code == 1 and "shorten the input to 248 tokens, or tune a prompt with" in message.err
    assert run("generate", chatty, "x" * 243, "--prompt", "joke").code == 0
    message = run("generate", chatty, "x" * 245, "--prompt", "joke")
    assert message.code == 1 and "--max-new-tokens 3" in message.err
    assert run("generate", chatty, "x" * 245, "--prompt", "joke", "--max-new-tokens", 3).code == 0
    rows = write_rows(tmp_path / "rows.jsonl", [{"input": text, "target": "good", "style": "joke"}])
    message = run("eval", chatty, "--data", rows)
    assert (
        message.code == 1
        and "max-new-tokens" not in message.err
        and "tune a prompt with data.max_input" in message.err
    )


def test_an_output_that_is_taken_is_told_before_the_model_is_loaded(run, styles, tmp_path, monkeypatch):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")
    base = load(styles).manifest["base"] | {"hidden_size": 1, "layers": []}
    there = base | {"name": "other", "fingerprint": base["fingerprint"] | {"weights": "0"}}
    (tmp_path / "compiled").mkdir()
    (tmp_path / "compiled/base.json").write_text(json.dumps(there | {"format": 1}), encoding="utf-8")

    def loaded(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("softprompt.lm.loading.load", loaded)
    for command, out, words in (
        (["export", "--to", "peft"], "adapter", "already holds an adapter"),
        (["export", "--to", "peft"], "file", "is a file"),
        (["export", "--to", "llama.cpp"], "file", "is a file"),
        (["compile"], "compiled", "compiled for another base, 'other'"),
        (["compile"], "file", "is a file"),
    ):
        message = run(*command, styles, "--out", tmp_path / out)
        assert message.code == 1 and words in message.err and "loading" not in message.err
