"""The README tells the truth: its Python runs, and every command and file that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_python_example_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 1
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(blocks[0], names)
    assert names["tuned"].metrics["accuracy"] >= 0
    text = "what a lovely film"
    assert names["again"].generate(text) == names["tuned"].generate(text)


def test_the_commands_exist():
    from softprompt.cli.app import app

    known = {command.name for command in app.registered_commands}
    named = set(re.findall(r"softprompt (init|[a-z]+) ", README)) & {"init", "check", "tune", "generate"}
    assert named == {"init", "check", "tune", "generate"}
    assert {"eval", "inspect", "methods", "compose", *named} <= known
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in README and re.search(rf"^{target}:", makefile, re.M)


DOCS = (
    "architecture",
    "methods",
    "compose",
    "peft",
    "edge",
    "vllm",
    "deploy",
    "results",
    "running",
    "versions",
    "tasks",
    "exactness",
    "models",
    "measures",
    "report",
    "findings",
    "search",
    "choose",
    "performance",
    "serving",
    "measures-control",
    "measures-resources",
)
PAGES = ["README.md", *(f"docs/{name}.md" for name in DOCS)]


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
    from softprompt.config.schema import TaskConfig
    from softprompt.evaluation.metrics import default_metrics

    page = (ROOT / "docs/tasks.md").read_text(encoding="utf-8")
    kinds = get_args(TaskConfig.model_fields["kind"].annotation)
    assert len(kinds) == 5
    for kind in kinds:
        assert f"`{kind}`" in page
        own = kind in ("token-classification", "regression")
        assert not own or all(f"`{name}`" in page for name in default_metrics(kind))
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert len(blocks) == 3
    for block in blocks:
        assert recipe_from_dict({"data": "rows.jsonl", **yaml.safe_load(block)}).task.kind == "classification"
