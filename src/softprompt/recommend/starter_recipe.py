"""Makes a first recipe for a user's rows. What the rows are for is inferred, and the user can change it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ..config.load import recipe_from_dict
from ..data.sources import read_rows
from ..data.task import WRITTEN
from . import draft
from .infer_fields import Guess, guess
from .requirements import kind_of

LONGEST = 128  # new tokens at most; a word is counted as two
LOOKED_AT = 2000  # rows


def recipe_for(rows: str, folder: Path) -> tuple[dict[str, Any], Guess]:
    """Return the recipe as plain values, to be written into `folder`, and the fields that were inferred.

    Raises SoftPromptError for rows that cannot be read, or whose fields do not tell what is predicted.
    """
    read = read_rows(rows)[:LOOKED_AT]
    fields = guess(read)
    template = draft.template_of(fields)
    rendered = [template.render(row) for row in read]
    kind = kind_of(rendered)
    recipe: dict[str, Any] = {
        "model": draft.model_for(kind),
        **draft.sections(rows, folder, fields, kind),
    }
    if recipe["task"]["kind"] == "generation":
        recipe["task"]["metrics"] = ["perplexity", "chrf"]
    if recipe["task"]["kind"] in WRITTEN:
        words = max(len(row.target.split()) for row in rendered)
        recipe["task"]["max_new_tokens"] = max(16, min(LONGEST, 2 * words))
    recipe |= {
        "method": "prompt-tuning" if fields.prompt_field or kind == "embedding" else "prefix-tuning",
        "train": {"steps": 200, "batch_size": max(1, min(draft.batch_of(kind), len(read) // 2))},
        "output": "runs/prompt",
    }
    recipe_from_dict(recipe, folder)  # checks it
    return recipe, fields


def text_of(recipe: dict[str, Any], path: Path) -> str:
    """Return the text of the recipe's file: what was inferred first, then how it is used."""
    head = [
        "What the rows are for was inferred: template, task, prompt_field. Change what you like; then type",
        f"  softprompt check {shlex.quote(str(path))}",
        f"  softprompt tune {shlex.quote(str(path))}",
        "Paths belong to this file's folder. `softprompt methods` lists the methods.",
    ]
    return draft.text_of(recipe, head)
