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

#: The model of rows whose recipe names none: an encoder for vectors of texts, else a small decoder.
MODELS = {"embedding": "minilm"}
USUAL_MODEL = "smollm2"
NEGATIVES, UNIT = "negatives", (0.0, 1.0)  # a recipe's defaults


def model_for(kind: str | None) -> str:
    """Return the name of the base model for a kind of task, where the user names none."""
    return MODELS.get(kind or "", USUAL_MODEL)


def batch_of(kind: str) -> int:
    """Return the usual rows of a step; a query of an embedding task is compared with a step's documents."""
    return 32 if kind == "embedding" else 16


def template_of(fields: Guess, kind: str | None = None) -> Template:
    """Return the template of the inferred fields; `kind` is the task's, where it is not inferred."""
    embeds = (kind or fields.kind) == "embedding"
    return Template(
        fields.input,
        fields.target,
        prompt_field=fields.prompt_field,
        choices_field=fields.choices,
        rejected=fields.rejected,
        negatives_field=(fields.negatives or NEGATIVES) if embeds else None,
        score_field=fields.score,
    )


def sections(
    rows: str,
    folder: Path,
    fields: Guess,
    kind: str,
    labels: Iterable[str] = (),
    pooling: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Return a recipe's `data`, `template` and `task`; its paths are relative to its `folder`."""
    source = rows if rows.startswith("hf:") else os.path.relpath(expanded(rows), folder)
    data = {"train": source}
    if fields.prompt_field is not None:
        data["prompt_field"] = fields.prompt_field
    task: dict[str, Any] = {"kind": kind}
    if labels:
        task["labels"] = sorted(labels)
    if kind == "embedding":
        task |= {"negatives": fields.negatives} if fields.negatives not in (None, NEGATIVES) else {}
        task |= {"pooling": pooling} if pooling else {}
        task |= {"score": fields.score} if fields.score else {}
        task |= {"score_range": list(fields.score_range)} if fields.score_range not in (None, UNIT) else {}
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
