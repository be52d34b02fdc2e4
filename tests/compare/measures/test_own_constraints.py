"""Constraints of other packages, and what a comparison's workers cannot see."""

from __future__ import annotations

import pytest

from softprompt import methods
from softprompt.compare.candidates import candidates_of
from softprompt.compare.measures.constraints import CONSTRAINTS, Constraint
from softprompt.compare.running.importable import check_importable
from softprompt.config.load import recipe_from_dict
from softprompt.errors import SoftPromptError
from softprompt.evaluation.metrics import METRICS
from softprompt.methods import prompt_tuning
from softprompt.methods.method import Method


def max_lines(value, labels):
    limit = int(value)
    return lambda text: len(text.splitlines()) <= limit


@pytest.fixture
def own():
    yield lambda target: CONSTRAINTS.register("max_lines", target)
    CONSTRAINTS.pop("max_lines", None)


def test_a_constraint_of_another_package_holds_beside_the_librarys(own):
    own(max_lines)
    constraint = Constraint.parse({"max_words": 3, "max_lines": 1})
    assert constraint.parts == ["max_words", "max_lines"] and str(constraint) == "max_words 3, max_lines 1"
    assert constraint.holds("a b c") and constraint.broken("a\nb") == ["max_lines"]
    assert constraint.broken("a b c d\n e") == ["max_words", "max_lines"]


def test_wrong_constraints_are_errors(own):
    own(max_lines)
    with pytest.raises(SoftPromptError, match="constraint `max_lines` cannot take 'many'"):
        Constraint.parse({"max_lines": "many"})
    with pytest.raises(SoftPromptError, match="did you mean 'max_lines'"):
        Constraint.parse({"max_line": 1})
    own(lambda value, labels: value)
    with pytest.raises(SoftPromptError, match="gave a int instead of a check"):
        Constraint.parse({"max_lines": 1})
    own(lambda value, labels: lambda text: 1 / 0)
    with pytest.raises(SoftPromptError, match="failed on the answer 'a'"):
        Constraint.parse({"max_lines": 1}).broken("a")
    with pytest.raises(SoftPromptError, match="a constraint is a function"):
        own(3)


def test_workers_cannot_see_what_this_process_registered(own):
    own(max_lines)
    METRICS.register("mine", lambda text, references: 1.0)
    methods.register("mine", Method(prompt_tuning.build, 0.1, "text"))
    try:
        for plain in (
            {"compare": {"methods": ["mine"]}},
            {"task": {"metrics": ["mine"]}},
            {"compare": {"constraint": {"max_lines": 1}}},
        ):
            recipe = recipe_from_dict({"data": {"train": "rows.jsonl"}, **plain})
            with pytest.raises(SoftPromptError, match="cannot be compared in other processes") as caught:
                check_importable(recipe, candidates_of(recipe))
            assert "an entry point `softprompt." in caught.value.fix
    finally:
        del METRICS["mine"], methods.METHODS["mine"]
    recipe = recipe_from_dict({"data": {"train": "rows.jsonl"}})
    check_importable(recipe, candidates_of(recipe))
