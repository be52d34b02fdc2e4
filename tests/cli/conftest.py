"""A folder with rows and a recipe for the tiny Llama, and a way to run commands in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from softprompt._system.quiet import VERBOSE
from softprompt.cli import main, output

RECIPE = """\
model: {model}
data: {{train: train.jsonl, dev: dev.jsonl}}
template: {{input: "Say: {{{{ input }}}}", target: "{{{{ target }}}}"}}
task: {{kind: classification, labels: [good, bad]}}
method: {{name: prompt-tuning, length: 3}}
train: {{steps: 4, batch_size: 4, dtype: float32}}
output: {output}
"""

#: The shortest comparison that has everything.
QUICKEST = [
    "methods=[prompt-tuning/after, zero-shot]",
    "rates=[1e-2]",
    "seeds=1",
    "steps=2",
    "control=false",
    "serving=false",
]


@dataclass(frozen=True)
class CommandResult:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output must be exactly one JSON object."""
        result = json.loads(self.out)
        assert isinstance(result, dict) and self.out.count("\n") == 1
        return result


@pytest.fixture
def run(capsys, monkeypatch) -> Callable[..., CommandResult]:
    """`run("eval", folder, …)`: one command in this process; causes of errors are shown under `-v` only."""
    monkeypatch.setenv(VERBOSE, "0")
    monkeypatch.setattr(output, "verbose", lambda: os.environ[VERBOSE] == "1")

    def call(*arguments: object) -> CommandResult:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return CommandResult(code, captured.out, captured.err)

    return call


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_project(folder: Path, model: Path, **changes: str) -> Path:
    """Rows, dev rows and `recipe.yaml` in `folder`; the recipe."""
    rows = [
        {"input": f"{word} {i}", "target": ("good", "bad")[i % 2], "style": ("joke", "fact")[i % 2]}
        for i, word in enumerate(["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss"] * 2)
    ]
    write_rows(folder / "train.jsonl", rows[:12])
    write_rows(folder / "dev.jsonl", rows[12:])
    recipe = folder / "recipe.yaml"
    text = RECIPE.format(model=model, output=folder / "out")
    for old, new in changes.items():
        text = "\n".join(new if line.startswith(f"{old}:") else line for line in text.split("\n"))
    recipe.write_text(text, encoding="utf-8")
    return recipe


@pytest.fixture
def recipe(tmp_path, model_folder) -> Path:
    return make_project(tmp_path, model_folder)


@pytest.fixture(scope="session")
def tuned(tmp_path_factory, model_folder) -> Path:
    """A tuned classification prompt; nobody may change it."""
    folder = tmp_path_factory.mktemp("tuned")
    assert main(["tune", str(make_project(folder, model_folder))]) == 0
    return folder / "out"


@pytest.fixture(scope="session")
def chatty(tmp_path_factory, model_folder) -> Path:
    """Two tuned generation prompts, by name; nobody may change it."""
    return tuned_styles(tmp_path_factory.mktemp("chatty"), model_folder)


@pytest.fixture(scope="session")
def styles(tmp_path_factory, model_folder) -> Path:
    """The same as prefixes that stand before the input; nobody may change the folder."""
    return tuned_styles(tmp_path_factory.mktemp("styles"), model_folder, "prefix-tuning")


def tuned_styles(folder: Path, model: Path, method: str | None = None) -> Path:
    """Two tuned prompts, `joke` and `fact`: of the recipe's method, or of `method` before the input."""
    changes = (
        {} if method is None else {"method": f"method: {{name: {method}, length: 3, placement: before}}"}
    )
    recipe = make_project(
        folder,
        model,
        data="data: {train: train.jsonl, dev: dev.jsonl, prompt_field: style}",
        task="task: {kind: generation, max_new_tokens: 5}",
        **changes,
    )
    assert main(["tune", str(recipe), "steps=2"]) == 0
    return folder / "out"
