"""Python's arguments as a recipe's keys, and a recipe's words back as Python's arguments.

`tune(…, length=4, steps=100, max_input_tokens=66)` names settings as the command line does (`key=value`),
whatever section of a recipe they belong to. Errors are written for recipes and a shell; here they are put in
the caller's words.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from . import methods
from .errors import IN_SHELL, SoftPromptError, unknown
from .lm.base import LanguageModel
from .recipe import PREFERRED, SECTIONS

P = ParamSpec("P")
R = TypeVar("R")
OURS = {"data": ("train", "dev"), "task": ("kind",), "method": ("name",)}  # arguments of their own
SHELL = {
    r"(add )?--overwrite\b": "overwrite=True",
    r"(add )?--restart\b": "restart=True",
    r"--other-base\b": "other_base=True",
    r"--plain\b": "plain=True",
    r"--prompt ('[^']*'|[^\s;,]+)": r"prompt=\1",
    r"--model ('[^']*'|[^\s;,]+)": r"model=\1",
    r"\bdata\.train\b": "rows",
    r"\btask\.kind\b": "task",
    r"\b(?:train|data|task|method|base)\.(\w+)": r"\1",
    r"\btemplate\.(\w+)": r'template["\1"]',
}


def sections(given: Mapping[str, Any], function: str) -> dict[str, dict[str, Any]]:
    """Settings by section of a recipe: `{"length": 4}` is `{"method": {"length": 4}}`."""
    found: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS if name != "compare"}
    owners = _owners()
    for name, value in given.items():
        if name in found and isinstance(value, Mapping):
            found[name] |= value
        elif name == "base":
            found["base"]["mode"] = value
        elif name in owners:
            found[owners[name]][name] = value
        else:
            known = {*owners, "data", "base"}
            raise unknown(
                f"argument of {function}", name, known, fix="docs/methods.md has a method's options"
            )
    return found


def _owners() -> dict[str, str]:
    """The section of each setting; training's before a method's option of the same name."""
    owners = dict.fromkeys(methods.option_names(), "method")
    for section in ("base", "template", "task", "data", "train"):
        for name in SECTIONS[section].model_fields:
            if name not in OURS.get(section, ()):
                owners[name] = section
    return {**owners, **PREFERRED}


def base_given(lm: Any) -> LanguageModel | str:
    """The base model as it was given: a loaded one, or a name. Raises for anything else."""
    if isinstance(lm, LanguageModel | str):
        return lm
    if isinstance(lm, Path):
        return str(lm)
    library = type(lm).__module__.partition(".")[0]
    kind = f"it is of the type {'' if library == 'builtins' else library + '.'}{type(lm).__name__}"
    own = hasattr(lm, "save_pretrained")
    raise SoftPromptError(
        f"lm is no base model: {kind}",
        why="it must be a hub id, a folder, or what softprompt.load gives, which knows how vectors enter it",
        fix="save it and its tokenizer with save_pretrained(FOLDER), and give softprompt.load(FOLDER)"
        if own
        else 'lm = softprompt.load("smollm2")',
    )


def in_python(function: Callable[P, R]) -> Callable[P, R]:
    """The function with its errors in Python's words: `overwrite=True`, not `--overwrite`."""

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        try:
            return function(*args, **named)
        except SoftPromptError as error:
            if not IN_SHELL.get():
                error.what, error.why, error.fix = map(worded, (error.what, error.why, error.fix))
            raise

    return call


def worded(text: str) -> str:
    """A recipe's keys and a shell's options as Python's arguments."""
    for shell, python in SHELL.items():
        text = re.sub(shell, python, text)
    return text
