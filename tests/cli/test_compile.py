"""`compile` through the command line: names, refusals, and and the others are compiled."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

from softprompt.cli import main

from ..serve.gateway.standin import StandIn
from .conftest import make_project, tuned_styles


@pytest.fixture(scope="module")
def styles(tmp_path_factory, model_folder):
    """Two tuned soft prompts that stand before the input; nobody may change the folder."""
    return tuned_styles(tmp_path_factory.mktemp("styles"), model_folder, "prompt-tuning")


def test_every_prompt_of_an_artifact(run, styles, tmp_path):
    out = tmp_path / "compiled"
    found = run("compile", styles, "--out", out, "--json").json
    assert set(found["prompts"]) == {"out:fact", "out:joke"} and found["refused"] == {}
    assert {prompt["vectors"] for prompt in found["prompts"].values()} == {3}
    half = run("compile", styles, "--out", tmp_path / "half", "--dtype", "bfloat16", "--json").json
    full, less = (sum(p["bytes"] for p in output["prompts"].values()) for output in (found, half))
    assert full / 2 < less < full
    output = run("compile", styles, "--out", out)
    assert output.code == 0 and f"{out}: 2 compiled for" in output.out and "out:joke  3 vectors" in output.out


@pytest.fixture(scope="module")
def infix(tmp_path_factory, model_folder):
    """A tuned prefix after the input."""
    folder = tmp_path_factory.mktemp("infix")
    assert main(["tune", str(make_project(folder, model_folder)), "method=prefix-tuning", "steps=2"]) == 0
    return folder / "out"


def test_soft_tokens_after_the_input_are_kept_as_they_are(run, tuned, tmp_path):
    found = run("compile", tuned, "--out", tmp_path / "compiled", "--json").json
    assert found["prompts"]["out"]["vectors"] == 3
    assert (tmp_path / "compiled/embeddings.safetensors").exists()


def test_one_that_is_refused(run, infix, tmp_path):
    output = run("compile", infix, "--out", tmp_path / "compiled")
    assert output.code == 1 and output.err.count("error: ") == 1
    assert "cannot hold a prefix after the input" in output.err
    assert not (tmp_path / "compiled").exists()


def test_the_others_go_on(run, infix, styles, tmp_path):
    shutil.copytree(styles, tmp_path / "tree/team/style")
    shutil.copytree(infix, tmp_path / "tree/mood")
    output = run("compile", tmp_path / "tree", "--out", tmp_path / "compiled", "--json")
    assert output.code == 1
    assert set(output.json["prompts"]) == {"team/style:fact", "team/style:joke"}
    assert "after the input" in output.json["refused"]["mood"]["what"]


def test_no_prompt_is_called_as_the_base(run, styles, tuned, model_folder, tmp_path):
    """Whether its artifact holds one prompt or several; with a folder ahead of it in its name, it may."""
    name = model_folder.name
    for artifact in (styles, tuned):
        shutil.rmtree(tmp_path / "tree", ignore_errors=True)
        shutil.copytree(artifact, tmp_path / "tree" / name)
        output = run("compile", tmp_path / "tree" / name, "--out", tmp_path / "out")
        assert output.code == 1 and f"'{name}' is the base model's name and a prompt's" in output.err
        assert not (tmp_path / "out").exists()
    shutil.copytree(styles, tmp_path / "tree/style")
    output = run("compile", tmp_path / "tree", "--out", tmp_path / "out", "--json")
    assert output.code == 1 and set(output.json["prompts"]) == {"style:fact", "style:joke"}
    assert set(output.json["refused"]) == {name}
    output = run("compile", tmp_path, "--out", tmp_path / "above", "--json")
    assert output.code == 0 and f"tree/{name}" in output.json["prompts"]
    (tmp_path / "tree" / name).rename(tmp_path / "renamed")
    assert run("compile", tmp_path / "renamed", "--out", tmp_path / "out").code == 0


def test_nothing_there(run, tmp_path):
    output = run("compile", tmp_path, "--out", tmp_path / "out")
    assert output.code == 1 and "no tuned prompt in" in output.err
    output = run("compile", tmp_path / "no", "--out", tmp_path / "out")
    assert output.code == 1 and "no tuned prompt at" in output.err


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("page", "count"), [("edge", 4), ("vllm", 2)])
def test_the_commands_of_the_pages_parse(run, page, count):
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    commands = re.findall(r"^softprompt (\w+) (.*)$", text, re.M)
    assert len(commands) == count
    for name, rest in commands:
        output = run(name, "--help")
        assert output.code == 0
        assert all(option in output.out for option in re.findall(r"--[a-z][a-z-]+", rest))


def test_the_gateway_says_what_it_lacks(run, styles, tmp_path):
    words = ["serve", "--engine", "vllm", "--port", "0", "--vllm-url", "http://127.0.0.1:9"]
    output = run(*words, tmp_path)
    assert output.code == 1 and "no compiled prompts at" in output.err
    run("compile", styles, "--out", tmp_path / "compiled")
    output = run(*words, tmp_path / "compiled")
    assert output.code == 1 and "vLLM at http://127.0.0.1:9 does not answer" in output.err


@pytest.mark.parametrize("prompt", ["", ":joke"])
def test_a_gateway_does_not_start_with_a_prompt_called_as_the_base(
    run, styles, model_folder, tmp_path, prompt
):
    """Such as were compiled before `compile` refused them; what the error says to do helps."""
    run("compile", styles, "--out", tmp_path / "compiled")
    names = tmp_path / "compiled/prompts"
    there = next(names.glob("*joke.json"))
    file = names / f"{quote(model_folder.name + prompt)}.json"
    shutil.copy(there, file)
    vllm = StandIn()
    words = ["serve", tmp_path / "compiled", "--engine", "vllm", "--port", "0", "--vllm-url", vllm.url]
    output = run(*words)
    assert output.code == 1 and "is the base model's name and a prompt's" in output.err
    assert f"remove {file}" in " ".join(output.err.split())
    file.unlink()
    vllm.models = lambda c: c.reply(200, {"data": [{"id": "base"}]})
    output = run(*words)
    assert output.code == 1 and "how long its context is" in output.err
    vllm.close()
