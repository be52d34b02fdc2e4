"""`softprompt serve --config`: every option, all mistakes with their lines, and what SIGHUP takes over."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from tests.cli.test_serve import process
from typer.main import get_command

pytest.importorskip("fastapi", reason="NO SERVER TESTS: pip install softprompt[serve]")
import httpx2 as httpx

from softprompt.cli import serve as command
from softprompt.cli.app import app
from softprompt.cli.serve_config import SAFE, Reloading, ServeConfig, read_config
from softprompt.errors import SoftPromptError


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_every_option_of_the_command_is_an_option_of_the_file():
    options = {parameter.name: parameter for parameter in get_command(app).commands["serve"].params}
    names = set(options) - {"config", "new_key", "json", "verbose", "folder"} | {"prompts"}
    assert set(ServeConfig.model_fields) == names and set(SAFE) < names
    for name, value in ServeConfig().model_dump().items():
        if name != "prompts":
            default = options[name].default
            assert getattr(default, "value", default) == value or (default is None and value == []), name


def test_all_mistakes_with_their_lines(run, tmp_path):
    text = "port: 70000\nprot: 3\nmax-tokens: 5\ntimeout: soon\nengine: vlm\nrows: 0\nrows: 3\nno_keys: 1\n"
    path = write(tmp_path / "serve.yaml", text)
    output = run("serve", "--config", path)
    assert output.code == 1 and "7 mistakes" in output.err
    for line, part in (
        *((1, "port: 70000"), (2, "did you mean 'port'"), (3, "did you mean 'max_tokens'"), (4, "timeout")),
        *((5, "engine: 'vlm'"), (7, "written twice, first at line 6"), (8, "no_keys: 1")),
    ):
        (found,) = [row for row in output.err.splitlines() if f"serve.yaml:{line}: " in row]
        assert part in found
    for content in ("- a\n", "port: [\n", b"\xff\xfe"):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        output = run("serve", "--config", path, "--json")
        assert output.code == 1 and output.json["error"]["what"]
    assert "no such file" in run("serve", "--config", tmp_path / "none.yaml").err


def test_the_command_line_has_precedence_and_paths_belong_to_the_file(run, tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    path = write(
        tmp_path / "conf/serve.yaml", "prompts: ../mine\nkeys: keys.yaml\nrows: 5\nmodel: base\nport: 0\n"
    )
    monkeypatch.setenv("PROMPTS", "/srv")
    assert read_config(write(tmp_path / "env.yaml", "prompts: $PROMPTS/a\n")) == {"prompts": "/srv/a"}
    seen = {}
    monkeypatch.setattr(
        command, "run", lambda folder, model, *_, **more: seen.update(more, folder=folder, model=model)
    )
    assert run("serve", "--config", path, "--rows", 7).code == 0
    assert seen["folder"].resolve() == tmp_path / "mine" and seen["keys"] == tmp_path / "conf/keys.yaml"
    assert (seen["rows"], seen["queue"], seen["model"]) == (7, 256, "base")
    assert run("serve", tmp_path, "--config", path).code == 0 and seen["folder"] == tmp_path
    assert read_config(write(tmp_path / "hub.yaml", "prompts: hf:me/voices\n")) == {"prompts": "hf:me/voices"}


def test_what_is_taken_over_and_what_needs_a_restart(tmp_path, caplog):
    path = write(tmp_path / "serve.yaml", "port: 1\nmax_tokens: 10\ndrain: 1\n")
    taken = []
    reloading = Reloading(path, frozenset({"drain"}), taken.append)
    caplog.set_level(logging.INFO, "softprompt.serve")
    write(path, "port: 2\nmax_tokens: 20\ndrain: 2\ntimeout: 9\n")
    reloading()
    assert taken == [{"max_tokens": 20, "timeout": 9.0}]
    assert "max_tokens 10 → 20" in caplog.text and "a restart is needed for: port" in caplog.text
    assert "precedence over the file: drain" in caplog.text
    caplog.clear()
    write(path, "port: 2\nmax_tokens: many\n")
    reloading()
    assert len(taken) == 1 and "were not changed" in caplog.text and ":2: max_tokens" in caplog.text
    caplog.clear()
    write(path, "port: 1\nmax_tokens: 20\ntimeout: 9\ndrain: 1\n")  # as it runs
    reloading()
    assert taken[1:] == [{}] and "nothing changed" in caplog.text and "restart" not in caplog.text


def test_a_setting_that_cannot_be_used_changes_nothing(tmp_path, caplog):
    path = write(tmp_path / "serve.yaml", "max_tokens: 10\n")

    def refuse(values):
        if values:
            raise SoftPromptError("the keys hold nothing")

    reloading = Reloading(path, frozenset(), refuse)
    write(path, "max_tokens: 20\n")
    for _ in range(2):  # it is tried again
        reloading()
    assert caplog.text.count("the keys hold nothing") == 2 and reloading.before["max_tokens"] == 10


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_a_signal_while_the_model_is_loaded_is_obeyed_later(tmp_path):
    """By default SIGHUP ends a process, and systemd takes that for a clean end."""
    path, taken = write(tmp_path / "serve.yaml", "max_tokens: 10\n"), []
    reloading = Reloading(path, frozenset(), taken.append)
    before = signal.getsignal(signal.SIGHUP)
    with reloading.remembering():
        write(path, "max_tokens: 20\n")
        os.kill(os.getpid(), signal.SIGHUP)
        assert taken == []
        reloading.catch_up()
        reloading.catch_up()
    assert taken == [{"max_tokens": 20}] and signal.getsignal(signal.SIGHUP) == before


def test_the_server_takes_settings_over(tmp_path):
    from softprompt.serve.http.keys import Keys, new_key
    from softprompt.serve.http.limits import Limits
    from softprompt.serve.http.server import Server

    files = []
    for name in ("old", "new"):
        secret, entry = new_key(name)
        files.append((write(tmp_path / f"{name}.yaml", entry), secret))
    service = SimpleNamespace(limits=Limits(), keys=Keys(files[0][0]))
    hosts = {"old.example"}
    server = Server(SimpleNamespace(state=SimpleNamespace(service=service, hosts=hosts)))
    settings = {"max_tokens": 5, "timeout": 7.0, "drain": 1.0, "hosts": ("New.example",), "keys": files[1][0]}
    server.take(settings)
    assert (service.limits.output_tokens, service.limits.seconds, server.drain) == (5, 7.0, 1.0)
    assert hosts == {"new.example"} and server.config.timeout_graceful_shutdown == 6
    assert service.keys.find(files[0][1]) is None and service.keys.find(files[1][1]).name == "new"
    with pytest.raises(SoftPromptError, match="cannot read the keys"):
        server.take({"max_tokens": 6, "keys": tmp_path / "gone.yaml"})
    assert service.limits.output_tokens == 5 and service.keys.find(files[1][1]) is not None
    service.keys = None
    with pytest.raises(SoftPromptError, match="cannot change while the server runs"):
        server.take({"keys": files[1][0]})


@pytest.mark.process
def test_the_pages_server_reads_its_file_again(model_folder, tmp_path):
    """The command and the file of docs/operations.md, with a tiny model and without keys."""
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^```bash\n(softprompt .*)\n```", page, re.M)[:1]
    text = re.search(r"^```yaml\n(.*?)^```", page, re.S | re.M)[1]
    options = yaml.safe_load(text)
    assert read_config(write(tmp_path / "as-written.yaml", text)) == {
        **options,
        "prompts": str(tmp_path / "runs"),
        "keys": str(tmp_path / "keys.yaml"),
    }
    (tmp_path / "runs").mkdir()
    options |= {"model": str(model_folder), "port": 0, "keys": None}
    path = write(tmp_path / "serve.yaml", yaml.safe_dump(options))
    body = {"model": model_folder.name, "prompt": "a", "max_tokens": 5}
    with process(*command.split()[1:], folder=tmp_path) as (server, output):
        assert httpx.post(output["url"] + "/v1/completions", json=body).status_code == 200
        write(path, yaml.safe_dump(options | {"max_tokens": 4}))
        server.send_signal(signal.SIGHUP)
        for _ in range(100):
            if httpx.post(output["url"] + "/v1/completions", json=body).status_code == 400:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the limit was not taken over")
        server.terminate()
        assert server.wait(30) == 0
        log = [json.loads(line) for line in server.stderr.read().splitlines()]
        messages = "\n".join(line.get("message", "") for line in log)
        assert "loading" in messages and "/play" in messages and "max_tokens 512 → 4" in messages
