"""The recipe that `distill --demonstrations` makes of a file of rows is written here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.sources import read_rows
from ..errors import SoftPromptError
from ..lm.loading import load_tokenizer
from .requests import FIELDS

TARGETS = ("target", "answer", "output", "response", "completion", "label")


def recipe_of(file: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the tree of a recipe; `overrides` are the settings that will be changed in it.

    Fields are known by their usual names; targets that repeat are labels. Raises SoftPromptError where the
    rows have no such field and no override names one.
    """
    named = {key: value for key, _, value in (text.partition("=") for text in overrides)}
    rows, template = list(read_rows(str(file))), dict[str, Any]()
    for part, usual in (("target", TARGETS), ("input", FIELDS)):
        if (chosen := named.get(f"template.{part}", named.get(part))) is not None:
            template[part] = chosen
            continue
        names = [str(name) for name in (rows[0] if rows else {})]
        name = next((name for name in usual if name in names), None)
        if name is None:
            raise SoftPromptError(
                f"the demonstrations in {file} have no field that holds their {part}",
                why=f"the first has: {', '.join(names) or 'nothing'}; known names are {', '.join(usual)}",
                fix=f"name it: template.{part}='{{{{ FIELD }}}}'",
            )
        template[part] = "{{ " + name + " }}"
    field = template["target"].strip("{} ")
    is_label = _are_labels([str(row.get(field)) for row in rows])
    model = str(named.get("model", named.get("model.id", "smollm2")))
    template["chat"] = bool(getattr(load_tokenizer(model), "chat_template", None))
    return {
        "model": model,
        "data": {"train": str(file)},
        "template": template,
        "task": {"kind": "classification"} if is_label else {"kind": "generation", "max_new_tokens": 64},
        "method": {
            "name": "prefix-tuning",
            "init": "demonstrations",
            "placement": "before",
            "leave_one_out": True,
            "token_dropout": 0.1,
        },
        "train": {"steps": 60, "batch_size": 8, "lr": 1e-3},
        "output": "runs/demonstrations",
    }


def _are_labels(targets: Sequence[str]) -> bool:
    """Return whether targets are labels: a few short texts, which repeat."""
    distinct = set(targets)
    return 2 <= len(distinct) <= len(targets) // 2 and max(map(len, distinct)) <= 40
