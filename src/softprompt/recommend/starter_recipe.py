"""A first recipe for rows of one's own: what they are for is guessed, and written to be changed."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import yaml

from .._system.paths import expanded
from ..config.load import recipe_from_dict
from ..data.sources import read_rows
from ..data.template import Template
from .infer_fields import Guess, guess
from .requirements import kind_of

LONGEST = 128  # new tokens, at most; a word is taken for two
LOOKED_AT = 2000  # rows


def recipe_for(rows: str, folder: Path) -> tuple[dict[str, Any], Guess]:
    """The recipe as plain values, to be written into `folder`, and what was guessed for it.

    Raises SoftPromptError for rows that cannot be read, or whose fields do not tell what is asked for.
    """
    found = read_rows(rows)[:LOOKED_AT]
    guessed = guess(found)
    template = Template(
        guessed.input, guessed.target, prompt_field=guessed.prompt_field, choices_field=guessed.choices
    )
    rendered = [template.render(row) for row in found]
    kind = kind_of(rendered)
    task: dict[str, Any] = {"kind": kind}
    if kind == "choice":
        task["choices"] = guessed.choices
    if kind == "generation":
        words = max(len(row.target.split()) for row in rendered)
        task |= {"metrics": ["perplexity", "chrf"], "max_new_tokens": max(16, min(LONGEST, 2 * words))}
        if guessed.references is not None:
            task["references"] = guessed.references
    source = rows if rows.startswith("hf:") else os.path.relpath(expanded(rows), folder)
    data = {"train": source}
    if guessed.prompt_field is not None:
        data["prompt_field"] = guessed.prompt_field
    recipe = {
        "model": "smollm2",
        "data": data,
        "template": {"input": guessed.input, "target": guessed.target},
        "task": task,
        "method": "prompt-tuning" if guessed.prompt_field else "prefix-tuning",
        "train": {"steps": 200, "batch_size": max(1, min(16, len(found) // 2))},
        "output": "runs/prompt",
    }
    recipe_from_dict(recipe, folder)  # it is one
    return recipe, guessed


def text_of(recipe: dict[str, Any], path: Path) -> str:
    """The recipe as it is written: what was guessed first, then how it is used."""
    head = [
        "What the rows are for was guessed: template, task, prompt_field. Change what you like; then type",
        f"  softprompt check {shlex.quote(str(path))}",
        f"  softprompt tune {shlex.quote(str(path))}",
        "Paths belong to this file's folder. `softprompt methods` lists the methods.",
    ]
    body = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100)
    return "\n".join(f"# {line}" for line in head) + "\n\n" + body
