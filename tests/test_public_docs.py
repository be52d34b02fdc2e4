"""The docstrings of the public names say what each parameter is, and what is raised."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import softprompt
from softprompt.methods.typed_options import CONFIGS

#: What a user cannot do wrong. `attach`, `build` and `load` raise for the rest of what methods may say.
RAISES_NOTHING = {
    *("SoftPromptError", "SoftPromptModel", "Tuned", "Tuned.evaluator"),
    *(f"SoftPromptModel.{name}" for name in ("train", "plain", "reference", "detach")),
    *("SoftPromptModel.print_trainable_parameters", "SoftPromptModel.gradient_checkpointing_disable"),
    "SoftPromptModel.enable_input_require_grads",
    *(f"{config.__name__}.{name}" for config in CONFIGS.values() for name in ("to_recipe", "options")),
}
REFERENCE = re.compile(r"(?:those of|as in|as|of|in|see)\s+`(?:softprompt\.)?(\w+)`")


def members() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function and class, and the public methods that this library gives the classes."""
    for name in sorted(set(softprompt.__all__) - {"__version__"}):
        value = getattr(softprompt, name)
        yield name, value
        if not isinstance(value, type):
            continue
        for owner in value.__mro__:
            if owner.__module__.startswith("softprompt"):
                for method, function in vars(owner).items():
                    function = getattr(function, "__func__", function)
                    if not method.startswith("_") and inspect.isfunction(function):
                        yield f"{name}.{method}", function


MEMBERS = dict(members())
DOCS = {name: inspect.getdoc(member) or "" for name, member in MEMBERS.items()}


def text_of(name: str, seen: frozenset[str] = frozenset()) -> str:
    """A docstring with those that it refers to, as "those of `tune`"."""
    text = DOCS[name]
    for other in REFERENCE.findall(text):
        for whole in (other, f"{name.split('.')[0]}.{other}"):
            if whole in DOCS and whole not in seen | {name}:
                text += " " + text_of(whole, seen | {name})
    return text


def parameters(member: Callable[..., Any]) -> list[str]:
    listed = inspect.signature(member).parameters.values()
    return [p.name for p in listed if p.name not in ("self", "cls") and p.kind is not p.VAR_POSITIONAL]


def test_the_public_names_are_looked_at():
    assert len(MEMBERS) > 50 and {"tune", "Tuned.encode", "SoftPromptModel.generate"} <= set(MEMBERS)
    assert set(MEMBERS) >= RAISES_NOTHING


@pytest.mark.parametrize("name", MEMBERS)
def test_each_parameter_is_described(name):
    text = text_of(name)
    assert DOCS[name]
    assert [p for p in parameters(MEMBERS[name]) if not re.search(rf"\b{p}\b", text)] == []


@pytest.mark.parametrize("name", sorted(set(MEMBERS) - RAISES_NOTHING))
def test_what_is_raised_is_described(name):
    assert re.search(r"\b(?:raise[sd]?)\b", text_of(name), re.I), f"{name} does not say what it raises"
