"""Writes templates of fields: a target, and an input that asks for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]

#: Target names that do not describe the answer.
BLANK = ("target", "output", "completion", "response", "y", "labels", "answers")


def target_template(rows: Rows, field: str, choices: str | None) -> tuple[str, str | None]:
    """Return the target's template, and the field of references where it holds a list of answers."""
    values = [row[field] for row in rows]
    if choices is not None and all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        return tag(f"{name_in_template(choices)}[{name_in_template(field)}]"), None
    if all(isinstance(v, list) and v and all(isinstance(item, str) for item in v) for v in values):
        return tag(f"{name_in_template(field)}[0]"), field
    return tag(name_in_template(field)), None


def _shown(rows: Rows, field: str) -> str:
    """Write a field in a template: an object by its names and values, a list by its items."""
    name, values = name_in_template(field), [row[field] for row in rows]
    if all(isinstance(value, Mapping) for value in values):
        return f"{{% for key, value in {name} | items %}}{{{{ key }}}}: {{{{ value }}}}; {{% endfor %}}"
    if all(isinstance(value, list) for value in values):
        return tag(f"{name} | join(', ')")
    return tag(name)


def input_template(
    rows: Rows, fields: Sequence[str], target: str | None, *, choices: str | None, is_label: bool
) -> str:
    """Return the input's template: the fields, with names where there are several, and the answer's name.

    `is_label` says whether the target has a few short values that occur often.
    """
    if len(fields) == 1 or fields[0].lower() == "instruction":
        lines = [_shown(rows, field) for field in fields]
    else:
        lines = [f"{_title(field)}: {_shown(rows, field)}" for field in fields]
    word = "Answer"
    if target is not None and target.lower() not in BLANK:
        word = _title(target.lower().removesuffix("_text").removesuffix("_name"))
    elif target is not None and choices is None and is_label:
        word = "Label"
    return "\n".join([*lines, f"{word}:"])


def tag(expression: str) -> str:
    """Return what writes the value of an expression."""
    return "{{ " + expression + " }}"


def name_in_template(name: str) -> str:
    """Return a field as a template names it; a header such as "Review text" is no name of a variable."""
    return name if name.isidentifier() else f"row[{json.dumps(name, ensure_ascii=False)}]"


def _title(name: str) -> str:
    return name.replace("_", " ").strip().capitalize()
