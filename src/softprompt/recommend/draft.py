"""Makes recipes from rows: the sections that describe the rows, and the text of a recipe's file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .._system.paths import expanded
from ..data.template import Template
from .infer_fields import Guess


def template_of(fields: Guess) -> Template:
    """Return the template of the inferred fields."""
    return Template(
        fields.input,
        fields.target,
        prompt_field=fields.prompt_field,
        choices_field=fields.choices,
        rejected=fields.rejected,
    )


def sections(
    rows: str, folder: Path, fields: Guess, kind: str, labels: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return a recipe's `data`, `template` and `task`; its paths are relative to its `folder`."""
    source = rows if rows.startswith("hf:") else os.path.relpath(expanded(rows), folder)
    data = {"train": source}
    if fields.prompt_field is not None:
        data["prompt_field"] = fields.prompt_field
    task: dict[str, Any] = {"kind": kind}
    if labels:
        task["labels"] = sorted(labels)
    if kind == "choice":
        task["choices"] = fields.choices
    if kind == "generation" and fields.references is not None:
        task["references"] = fields.references
    template = {"input": fields.input, "target": fields.target}
    if fields.rejected is not None:
        template["rejected"] = fields.rejected
    return {"data": data, "template": template, "task": task}


def text_of(recipe: Mapping[str, Any], head: Sequence[str]) -> str:
    """Return the text of the recipe's file; `head` are the lines of its comment."""
    body = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, width=100)
    return "\n".join(f"# {line}".rstrip() for line in head) + "\n\n" + body
