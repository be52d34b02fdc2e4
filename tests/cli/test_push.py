"""`softprompt push`, and the commands that take `hf:ID@REVISION` instead of a folder."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import typer
from tests.stand_in_hub import hub as hub

import softprompt

pytestmark = pytest.mark.whole


def test_a_pushed_prompt_answers_like_its_folder(run, hub, tuned, model_folder):
    """In a fresh cache; the JSON of each command names the commit."""
    pushed = run("push", tuned, "me/mood", "--license", "mit", "--yes", "--json")
    assert pushed.code == 0 and pushed.json["uploaded"]
    name = f"hf:me/mood@{pushed.json['revision']}"
    base = ["--model", model_folder, "--json"]
    words = {
        "generate": ["sunny day"],
        "eval": ["--data", tuned.parent / "dev.jsonl"],
        "inspect": [],
    }
    for command, more in words.items():
        local, fetched = (run(command, place, *more, *base) for place in (tuned, "hf:me/mood"))
        assert (local.code, fetched.code) == (0, 0), fetched.err
        assert fetched.json["artifact"] == name and local.json["artifact"] == str(tuned)
        left_out = ("artifact", "findings", "no_start", "prompts", "model")
        assert {k: v for k, v in fetched.json.items() if k not in left_out} == {
            k: v for k, v in local.json.items() if k not in left_out
        }


def test_one_prompt_of_a_table(run, hub, chatty, model_folder, tmp_path):
    softprompt.push(chatty, "me/voices")
    base = ["--model", model_folder, "--json"]
    local, fetched = (
        run("generate", place, "tell me", "--prompt", "fact", *base) for place in (chatty, "hf:me/voices")
    )
    assert local.json["outputs"] == fetched.json["outputs"]
    composed = run("compose", "--scale", "0.5", "hf:me/voices@main:joke", "--out", tmp_path / "mild", *base)
    sha = hub.repos["me/voices"].branches["main"]
    assert composed.json["sources"][0]["folder"] == f"hf:me/voices@{sha}"
    wrong = run("generate", "hf:me/voices:fact", "tell me")
    assert wrong.code == 1 and "--prompt" in wrong.err


def test_exported_and_compiled_from_the_hub(run, hub, styles, model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    softprompt.push(styles, "me/styles")
    exported = run(
        "export", "hf:me/styles", "--to", "peft", "--prompt", "joke", "--model", model_folder, "--json"
    )
    assert exported.code == 0 and (tmp_path / "styles-peft/adapter_config.json").exists()
    compiled = run("compile", "hf:me/styles", "--out", tmp_path / "kv", "--model", model_folder, "--json")
    assert set(compiled.json["prompts"]) == {"me/styles:joke", "me/styles:fact"}


def test_it_shows_what_it_would_upload_and_contacts_nobody(run, hub, tuned, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    shown = run("push", tuned, "me/mood", "--dry-run")
    assert shown.code == 0 and not hub.requests
    for part in (
        "to me/mood, branch main",
        "softprompt.json",
        "prompt.safetensors",
        "README.md",
        "library_name: softprompt",
    ):
        assert part in shown.out
    assert "note: no licence is stated" in shown.out and "note: paths of this machine" in shown.out
    data = run("push", tuned, "hf:me/mood@next", "--dry-run", "--json").json
    assert data["uploaded"] is False and data["branch"] == "next" and data["card"].startswith("---\n")
    assert data["files"]["prompt.safetensors"] == (tuned / "prompt.safetensors").stat().st_size


def test_without_a_terminal_it_uploads_only_with_yes(run, hub, tuned):
    shown = run("push", tuned, "me/mood")
    assert shown.code == 1 and "prompt.safetensors" in shown.out
    assert "nothing was uploaded" in shown.err and "--yes" in shown.err and not hub.requests
    assert run("push", tuned, "me/mood", "--json").json["error"]["fix"].startswith("add --yes")
    assert run("push", tuned, "me/mood", "--yes").code == 0
    assert set(hub.repos) == {"me/mood"}


@pytest.mark.parametrize("answer", [True, False])
def test_in_a_terminal_it_asks(run, hub, tuned, monkeypatch, answer):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda question, **_: answer)
    shown = run("push", tuned, "me/mood", "--private")
    assert "me/mood, branch main: a new private repository" in shown.out
    assert (shown.code, set(hub.repos)) == ((0, {"me/mood"}) if answer else (1, set()))
    assert ("uploaded: http" in shown.out) is answer


def test_an_update_says_what_it_replaces(run, hub, tuned, chatty, tmp_path):
    assert run("push", tuned, "me/mood", "--yes").code == 0
    shown = run("push", chatty, "me/mood", "--yes", "--message", "voices")
    assert "a public repository, at commit" in shown.err and "replaces the one there" in shown.err
    assert hub.repos["me/mood"].messages[-1] == "voices"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["me/mood"], "there is no token"),
        (["a/b/c"], "'a/b/c' is no id"),
        (["me/mood", "--base-model", "tiny"], "'tiny' is no id"),
    ],
)
def test_mistakes_are_one_error(run, hub, tuned, monkeypatch, arguments, what):
    monkeypatch.delenv("HF_TOKEN")
    failed = run("push", tuned, *arguments, "--yes")
    assert failed.code == 1 and failed.out == "" and not hub.requests
    assert failed.err.startswith(f"error: {what}") and "why:" in failed.err and "fix:" in failed.err


def test_a_run_of_training_uploads_no_rows_and_no_checkpoint(run, hub, tuned, tmp_path):
    shutil.copytree(tuned, tmp_path / "mood")
    (tmp_path / "mood/rows.jsonl").write_text("{}")
    assert run("push", tmp_path / "mood", "me/mood", "--yes").code == 0
    files = hub.repos["me/mood"].files()
    assert set(files) == {
        ".gitattributes",
        "README.md",
        "softprompt.json",
        "prompt.safetensors",
        "state.safetensors",
    }
    assert json.loads(files["softprompt.json"])["recipe"]["data"]["train"] == "train.jsonl"
    for content in files.values():
        assert str(tuned.parent).encode() not in content and b"cake" not in content
