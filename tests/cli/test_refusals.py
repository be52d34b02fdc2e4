"""Bad input gets one message that says what, why and how to fix it; exit code 1; nothing is written."""

from __future__ import annotations

import shutil

import pytest

from .conftest import make_project, write_rows

GOOD = '{"input": "sun", "target": "good"}\n'
LONG = '{"input": "' + "x" * 300 + '", "target": "good"}\n'

#: what the training file holds (None: it is missing), and what the message must name
ROWS = {
    "missing": (None, ["no file", "train.jsonl"]),
    "empty": ("", ["train.jsonl' is empty", "fix:"]),
    "no field": (
        GOOD + '{"inptu": "mud", "target": "bad"}\n',
        ["train.jsonl:2", "'input'", "did you mean 'inptu'"],
    ),
    "broken line": (GOOD + GOOD + '{"input": "mud"\n', ["train.jsonl:3", "broken JSON"]),
    "not an object": (GOOD + '["mud", "bad"]\n', ["train.jsonl:2", "a row is an object"]),
    "empty target": (GOOD + '{"input": "mud", "target": " "}\n', ["train.jsonl:2", "target is empty"]),
    "not a label": (GOOD + '{"input": "mud", "target": "godo"}\n', ["train.jsonl:2", "did you mean 'good'"]),
    "too long": (GOOD + LONG, ["train.jsonl:2", "context is 256", "data.max_input_tokens="]),
}

#: overrides, and what the message must name
SETTINGS = {
    "unknown method": (["method=prefx-tuning"], ["unknown method", "did you mean 'prefix-tuning'"]),
    "unknown option": (["method.lenght=4"], ["unknown option of prompt-tuning", "did you mean 'length'"]),
    "unknown key": (["train.stesp=4"], ["did you mean 'steps'"]),
    "unknown metric": (["task.metrics=[acuracy]"], ["unknown metric", "did you mean 'accuracy'"]),
    "bad value": (["length=0"], ["length=0"]),
    "ill-typed": (["method.placement=behind"], ["placement='behind'", "fix:"]),
    "bad number": (["steps=-3"], ["train.steps", "greater than or equal to 0"]),
    "no template field": (["template.input={{ text }}"], ["train.jsonl:1", "no field 'text'"]),
    "unknown model": (["model=smolm2"], ["unknown model", "did you mean 'smollm2'"]),
    "no model folder": (["model=./nowhere/model"], ["./nowhere/model"]),
    "no prompt column": (["data.prompt_field=stlye"], ["stlye"]),
    "no init text": (["init=text"], ["init=text needs a text", "method.text="]),
    "no artifact to start from": (["init=artifact", "artifact=./none"], ["no tuned prompt at none"]),
}


def refused(output, needles):
    assert output.code == 1 and output.out == "" and output.err.count("error: ") == 1
    assert "Traceback" not in output.err
    for needle in needles:
        assert needle in output.err, output.err


@pytest.mark.parametrize("command", ["check", "tune"])
@pytest.mark.parametrize("case", ROWS)
def test_bad_rows(run, recipe, tmp_path, case, command):
    content, needles = ROWS[case]
    rows = tmp_path / "train.jsonl"
    rows.unlink()
    if content is not None:
        rows.write_text(content)
    refused(run(command, recipe), needles)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", SETTINGS)
def test_bad_settings(run, recipe, tmp_path, case):
    overrides, needles = SETTINGS[case]
    refused(run("tune", recipe, *overrides), needles)
    assert not (tmp_path / "out").exists()


def test_every_mistake_of_a_recipe_is_told_at_once(run, recipe):
    output = run("check", recipe, "train.stesp=4", "task.kind=clasification")
    refused(output, ["2 mistakes", "did you mean 'steps'", "did you mean 'classification'"])


def test_options_of_the_recipes_own_method_are_left_out_for_another(run, recipe):
    output = run("check", recipe, "method=none", "base=lora")
    assert output.code == 0 and "note: none has no option length; left out" in output.err
    refused(run("check", recipe, "method=none", "length=3"), ["unknown option of none 'length'"])


def test_many_bad_rows_are_one_message(run, recipe, tmp_path):
    write_rows(tmp_path / "train.jsonl", [{"input": "a", "target": ""}] * 9)
    refused(run("tune", recipe), ["9 of 13 rows cannot be used", "… and 4 more"])


def test_artifact_for_another_base(run, tuned, tmp_path, new_lm):
    other = tmp_path / "other"
    lm = new_lm("llama", seed=7)
    lm.model.save_pretrained(other)
    lm.tokenizer.save_pretrained(other)
    words = ["eval", tuned, "--data", tuned.parent / "dev.jsonl", "--model", other]
    refused(run(*words), ["another base model", "weights differ", "--other-base"])
    assert run(*words, "--other-base").code == 0
    wide = tmp_path / "wide"
    lm = new_lm("llama", hidden_size=64)
    lm.model.save_pretrained(wide)
    lm.tokenizer.save_pretrained(wide)
    refused(run(*words[:-1], wide, "--other-base"), ["do not fit", "other sizes"])


@pytest.mark.parametrize(
    ("name", "content", "needles"),
    [
        ("prompt.safetensors", b"broken", ["prompt.safetensors is damaged or missing", "hash"]),
        ("state.safetensors", None, ["state.safetensors is damaged or missing"]),
        ("softprompt.json", b"{", ["softprompt.json is damaged"]),
        ("softprompt.json", None, ["no tuned prompt at", "has not finished"]),
    ],
)
def test_damaged_artifact(run, tuned, tmp_path, name, content, needles):
    copy = tmp_path / "copy"
    shutil.copytree(tuned, copy)
    (copy / name).unlink() if content is None else (copy / name).write_bytes(content)
    for words in (
        ["eval", copy, "--data", tuned.parent / "dev.jsonl"],
        ["generate", copy, "x"],
        ["inspect", copy],
    ):
        refused(run(*words), needles)


def test_damaged_checkpoint(run, recipe, tmp_path):
    checkpoint = tmp_path / "out" / "checkpoint" / "checkpoint.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"broken")
    refused(run("tune", recipe), ["checkpoint.safetensors is damaged", "--restart"])
    assert run("tune", recipe, "--restart").code == 0


def test_folder_that_cannot_be_written(run, recipe, tmp_path):
    (tmp_path / "out").write_text("a file where the folder should be")
    refused(run("tune", recipe), ["cannot write", "output=FOLDER"])


def test_eval_data_is_read_before_the_model(run, tuned, tmp_path):
    output = run("eval", tuned, "--data", tmp_path / "none.jsonl")
    refused(output, ["no file"])
    assert "loading" not in output.err


def test_errors_as_json(run, model_folder, tmp_path):
    recipe = make_project(tmp_path, model_folder)
    (tmp_path / "train.jsonl").write_text("{}\n")
    error = run("tune", recipe, "--json").json["error"]
    assert "train.jsonl:1" in error["what"] and error["why"] and error["fix"]
