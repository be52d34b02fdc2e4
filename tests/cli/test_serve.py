"""`softprompt serve` and `softprompt play`: refusals, keys, and a process from its start to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

pytest.importorskip("fastapi", reason="NO SERVER TESTS: pip install softprompt[serve]")
import httpx2 as httpx
import openai

from softprompt.artifacts.manifest import MANIFEST
from softprompt.cli.play import distilled_text
from softprompt.serve.http.keys import Keys
from softprompt.serve.http.server import listen


@contextmanager
def process(*arguments, folder=None):
    """The command as its own process, once it prints its address: `(process, output)`."""
    command = [sys.executable, "-c", "import sys; from softprompt.cli import main; sys.exit(main())"]
    started = subprocess.Popen(
        [*command, *map(str, arguments), "--json"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        line = started.stdout.readline()
        assert line, started.stderr.read()
        yield started, json.loads(line)
    finally:
        started.kill()
        started.communicate()


def test_an_address_beyond_loopback_needs_keys(run, tmp_path):
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        output = run("serve", tmp_path, "--host", host)
        assert output.code == 1 and "no keys are asked for" in output.err and "--no-keys" in output.err


def test_mistakes_are_said_before_a_model_is_loaded(run, tmp_path):
    assert run("serve").code == 2
    with listen("127.0.0.1", 0) as bound:
        bound.listen()
        output = run("serve", tmp_path, "--port", bound.getsockname()[1])
        assert output.code == 1 and "cannot listen" in output.err
    for command in ("serve", "play"):
        output = run(command, tmp_path / "none", "--port", 0)
        assert output.code == 1 and "no folder" in output.err
    output = run("serve", tmp_path, "--keys", tmp_path / "none.yaml", "--port", 0)
    assert output.code == 1 and "cannot read the keys" in output.err
    output = run("serve", tmp_path, "--cors-origin", "page.example", "--port", 0)
    assert output.code == 1 and "'page.example' is not an origin" in output.err
    output = run("serve", tmp_path, "--dtype", "float", "--port", 0)
    assert output.code == 1 and "did you mean 'float32'" in output.err


def test_a_prompt_that_is_called_as_the_base_is_refused(run, tmp_path):
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2/softprompt.json").write_text("{}")
    for folder in (tmp_path, tmp_path / "smollm2"):
        for command in ("serve", "play"):
            output = run(command, folder, "--port", 0)
            assert output.code == 1 and "is the base model's name and a prompt's" in output.err
            assert "loading" not in output.err


def test_a_new_key_is_shown_once_and_its_entry_opens(run, tmp_path):
    made = run("serve", "--new-key", "team-a", "--json").json
    (tmp_path / "keys.yaml").write_text(made["entry"])
    key = Keys(tmp_path / "keys.yaml").find(made["key"])
    assert key is not None and key.name == "team-a" and key.allows("team-a/x") and not key.allows("team-b/x")
    assert made["key"] not in made["entry"]
    output = run("serve", "--new-key", "team-a")
    assert output.out.startswith("sp-") and "sha256" in output.out and made["key"] not in output.out


@pytest.mark.process
@pytest.mark.parametrize(("end", "model"), [(signal.SIGTERM, None), (signal.SIGINT, ".")])
def test_a_tuned_prompt_is_served_until_a_signal(run, recipe, model_folder, tmp_path, end, model):
    assert run("tune", recipe).code == 0
    messages = run("generate", tmp_path / "out", "Say: sun", "--json").json["outputs"][0]
    more = ("--port", 0, "--cors-origin", "https://page.example/")
    started = process("serve", tmp_path, "--model", model or model_folder, *more, folder=model_folder)
    with started as (server, output):
        assert output["model"] == model_folder.name
        page = httpx.get(output["url"] + "/health", headers={"Origin": "https://page.example"})
        assert page.headers["access-control-allow-origin"] == "https://page.example"
        client = openai.OpenAI(base_url=output["url"] + "/v1", api_key="none")
        assert [model.id for model in client.models.list()] == [model_folder.name, "out"]
        body = {"model": "out", "input": "Say: sun"}
        reply = httpx.post(output["url"] + "/v1/classify", json=body).json()
        assert reply["data"][0]["label"] == messages
        server.send_signal(end)
        assert server.wait(30) == 0
        assert "Say" not in server.stderr.read()


def test_the_text_of_a_distilled_prompt(tmp_path):
    text, folder = tmp_path / "system.txt", tmp_path / "sea"
    text.write_text("Speak as a sailor.")
    (tmp_path / "other.txt").write_text("Be brief.")
    folder.mkdir()
    assert distilled_text(folder, None) == ""  # no artifact
    for named, shown in ((str(text), "Speak as a sailor."), (str(tmp_path / "gone"), ""), ("/dev/zero", "")):
        (folder / MANIFEST).write_text(json.dumps({"recipe": {"teacher": {"file": named}}}))
        assert distilled_text(folder, None) == shown
        assert distilled_text(folder, tmp_path / "other.txt") == "Be brief."
    for recipe in ({}, {"teacher": {"file": None}}, {"teacher": None}):
        (folder / MANIFEST).write_text(json.dumps({"recipe": recipe}))
        assert distilled_text(folder, None) == ""


def test_a_text_that_cannot_be_read(run, tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    for name, why in (("gone.txt", "No such file"), ("bytes", "not UTF-8")):
        output = run("play", tmp_path, "--system", tmp_path / name, "--no-open")
        assert output.code == 1 and name in output.err and why in output.err
        assert "--system FILE" in output.err and "Traceback" not in output.err


@pytest.mark.process
def test_the_playground_opens_the_browser(model_folder, tmp_path):
    seen = tmp_path / "seen"
    script = tmp_path / "browser.sh"
    script.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    script.chmod(0o755)
    before = os.environ.get("BROWSER")
    os.environ["BROWSER"] = f"{script} %s"
    try:
        with process("play", tmp_path, "--model", model_folder, "--port", 0) as (_, output):
            assert output["url"].startswith("http://127.0.0.1:") and output["url"].endswith("/play")
            assert "softprompt playground" in httpx.get(output["url"]).text
            for _ in range(100):
                if seen.exists() and seen.read_text().strip():
                    break
                subprocess.run(["sleep", "0.1"], check=True)
            assert seen.read_text().strip() == output["url"]
    finally:
        os.environ.pop("BROWSER")
        if before is not None:
            os.environ["BROWSER"] = before
