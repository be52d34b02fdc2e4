"""The page about the hub: its snippet runs unchanged, and its commands exist with their options."""

from __future__ import annotations

import re
from pathlib import Path

from softprompt.lm import loading

PAGE = (Path(__file__).parents[3] / "docs" / "hub.md").read_text(encoding="utf-8")


def test_the_snippet_runs(hub, model_folder, tmp_path, monkeypatch, capsys):
    """The alias of the embedded model names the tiny one here; all else is as on the page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(loading.ALIASES, "smollm2", lambda: model_folder)
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert PAGE.index(snippet) < 100
    names: dict = {}
    exec(snippet, names)
    assert names["again"].generate("What a film!") == names["tuned"].generate("What a film!")
    card = hub.repos["me/mood"].files()["README.md"].decode()
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card and "license: apache-2.0" in card
    assert "type: accuracy" in card and "interval_95" in card and "| accuracy | " in card


def test_every_command_on_the_page_has_its_options():
    from softprompt.cli.app import app

    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines()]
    known = {command.name for command in app.registered_commands}
    assert len(lines) == 8
    assert {line.split()[1] for line in lines} <= known
