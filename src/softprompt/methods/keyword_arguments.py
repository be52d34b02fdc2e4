"""Python's keyword arguments are translated into a recipe's keys, and the keys in errors back into arguments.

`tune(…, length=4, steps=100, max_input_tokens=66)` names settings as the command line does (`key=value`),
in whatever section of a recipe they belong. Errors are written for recipes and a shell; here they are
rewritten for a caller in Python.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from .. import methods
from ..config.schema import MOVED, PREFERRED, SECTIONS
from ..errors import IN_SHELL, WORDING, SoftPromptError, unknown

P = ParamSpec("P")
R = TypeVar("R")
OURS = {
    "model": ("id",),
    "data": ("train", "dev"),
    "task": ("kind",),
    "method": ("name",),
    "teacher": ("context", "file", "sha256", "role"),
}  # arguments of their own
SHELL = {
    r"(add )?--overwrite\b": "overwrite=True",
    r"(add )?--restart\b": "restart=True",
    r"--other-base\b": "other_base=True",
    r"--plain\b": "plain=True",
    r"--trust-remote-code\b": "trust_remote_code=True",
    r"\btrack\.(\w+)\.(\w+)=([\w-]+)": r'track={"\1": {"\2": "\3"}}',
    r"--prompt ('[^']*'|[^\s;,]+)": r"prompt=\1",
    r"--model ('[^']*'|[^\s;,]+)": r"model=\1",
}
#: Keys that are arguments of their own, under these names.
ARGUMENTS = {"data.train": "rows", "data.dev": "dev", "task.kind": "task", "method.name": "method"}
ARGUMENTS |= {"base.mode": "base"}


def sections(given: Mapping[str, Any], function: str) -> dict[str, dict[str, Any]]:
    """Sort settings by section of a recipe: `{"length": 4}` becomes `{"method": {"length": 4}}`."""
    by_section: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS if name != "compare"}
    owners = _owners()
    for name, value in given.items():
        if name in by_section and isinstance(value, Mapping):
            by_section[name] |= value
        elif name == "base":
            by_section["base"]["mode"] = value
        elif name in owners:
            by_section[owners[name]][name] = value
        elif name in methods.option_names():
            by_section["method"][name] = value
        else:
            known = {*owners, *methods.option_names(), "data", "base"}
            raise unknown(
                f"argument of {function}", name, known, fix="docs/methods.md has a method's options"
            )
    return by_section


def _owners() -> dict[str, str]:
    """Map each setting to its section; it comes before a method's option of the same name."""
    owners: dict[str, str] = {}
    for section in ("base", "teacher", "model", "template", "task", "data", "train"):
        for name in SECTIONS[section].model_fields:
            if name not in OURS.get(section, ()):
                owners[name] = section
    moved = {leaf: section for section, leaf in MOVED if leaf not in owners}
    return {**owners, **moved, **PREFERRED}


def in_python(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that its errors name Python's arguments: `overwrite=True`, not `--overwrite`."""

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        if IN_SHELL.get():
            return function(*args, **named)
        token = WORDING.set(worded)
        try:
            return function(*args, **named)
        except SoftPromptError as error:
            error.what, error.why, error.fix = map(worded, (error.what, error.why, error.fix))
            raise
        finally:
            WORDING.reset(token)

    return call


def worded(text: str) -> str:
    """Rewrite a recipe's keys and a shell's options as Python's arguments and values."""
    for shell, python in SHELL.items():
        text = re.sub(shell, python, text)
    return GIVEN.sub(_given, KEY.sub(_argument, text))


#: A key of a recipe (but not the file `data/train.jsonl`), and the value of an argument.
_VALUE = r"[^\s;,()\]]*[^\s;,()\].:']"
KEY = re.compile(
    rf"(?<![\w./\\-])(model|data|template|task|method|base|train)\.(\w+)(?![\w-]|[./]\w)(?:=({_VALUE}))?"
)
GIVEN = re.compile(rf"(?<![\w./\\-])(\w+)=(?=[A-Za-z])({_VALUE})")


def _argument(match: re.Match[str]) -> str:
    """Turn a key into an argument; where the name alone means another key, into a mapping."""
    section, name, value = match.groups()
    is_option = section == "method" and name in methods.option_names()
    if not is_option and name not in SECTIONS[section].model_fields:
        return match[0]
    given = "" if value is None else f"={value}"
    if (whole := f"{section}.{name}") in ARGUMENTS:
        return ARGUMENTS[whole] + given
    owner = _owners().get(name, section)
    if owner == section and (section != "template" or given):
        return name + given
    place = "options" if section == "method" else section
    return f'{place}={{"{name}": {value}}}' if given else f'{place}["{name}"]'


def _given(match: re.Match[str]) -> str:
    """Quote a word; leave a placeholder (FILE) as it is."""
    name, value = match.groups()
    known = {*_owners(), *ARGUMENTS.values(), "prompt", "model", "attention"}
    if value.isupper() or value in ("True", "False", "None"):
        return match[0]
    if name not in known and name not in methods.option_names():
        return match[0]
    return f"{name}={value.capitalize() if value in ('true', 'false') else repr(value)}"
