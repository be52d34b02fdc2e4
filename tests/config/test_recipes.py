"""The recipes that come with the project: how many there are, and that each is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from softprompt import methods
from softprompt.build import template_of
from softprompt.compare.candidates import candidates_of
from softprompt.config.load import load_recipe
from softprompt.evaluation.metrics import METRICS

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


def test_there_are_some_of_every_kind():
    names = [
        "chatbot",
        "compare",
        "data_to_text",
        "demonstrations",
        "document",
        "embedding",
        "multiple_choice",
        "sentiment",
        "system_prompt",
    ]
    assert [path.stem for path in RECIPES] == names
    kinds = {load_recipe(path).task.kind for path in RECIPES}
    assert kinds == {"classification", "generation", "choice", "embedding"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_sound(path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    recipe = load_recipe(path.relative_to(Path(__file__).parents[2]))
    methods.check_options(recipe.method.name, recipe.method.options())
    assert set(recipe.task.metrics or ()) <= set(METRICS)
    assert template_of(recipe).fields()
    assert f"runs/{path.stem}" in (recipe.output, recipe.compare.output)
    text = path.read_text(encoding="utf-8")
    # says how it is used
    command = "compare" if recipe.compare.output else "tune"
    distilled = recipe.task.objective == "distil" or recipe.method.options().get("init") == "demonstrations"
    command = "distill" if distilled else command
    assert f"softprompt {command} recipes/{path.name}" in text
    assert candidates_of(recipe)
