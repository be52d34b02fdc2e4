"""Demonstrations and requests are split: shown, trained on, used to choose the best step, measured on."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..build import template_of
from ..config.schema import Recipe
from ..data.row import Row
from ..data.sources import read_rows
from ..data.spelling import same_form
from ..data.template import Template
from ..data.template_checks import check_rows
from ..errors import SoftPromptError

LEAST = 8  # rows with a target, where some are kept apart
SHARES = (0.2, 0.4)  # of the requests with a target: to choose the best step by, and to measure on
SHARES_SHOWN = (0.15, 0.25)  # likewise of the demonstrations, where there are no such requests

Source = str | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Rows:
    """Rows with a target, and the requests that have none."""

    shown: list[Row]  # the demonstrations
    train: list[Any] = field(default_factory=list)  # beyond the demonstrations
    dev: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)
    unanswered: list[Row] = field(default_factory=list)


def read(recipe: Recipe, requests: Source | None, measured: Source | None) -> Rows:
    """Read the demonstrations and the requests; of these, `train` holds those that have a target.

    Raises SoftPromptError for demonstrations without a target, and for requests that cannot be read.
    """
    template = template_of(recipe)
    shown = read_rows(recipe.data.train)
    check_rows(template, shown)
    _refuse_without_target(template, shown, "demonstration", "add it, or move the row to --requests")
    if len(shown) < 2 and recipe.method.options().get("leave_one_out"):
        raise SoftPromptError(
            f"{len(shown)} demonstration is too few",
            why="with leave-one-out a row does not see itself, so that nothing is left to see",
            fix="give two or more, better 8 to 200; or method.leave_one_out=false",
        )
    known = {_input(template, row) for row in shown}
    more = _others(template, requests, known)
    test = _others(template, measured, known)
    _refuse_without_target(template, test, "row to measure on", "add it, or leave the row out of --measure")
    known |= {_input(template, row) for row in test}
    more = [row for row in more if _input(template, row) not in known]
    answered = [row for row in more if has_target(template, row)]
    return Rows(shown, answered, [], test, [row for row in more if not has_target(template, row)])


def split(rows: Rows, seed: int, template: Template) -> Rows:
    """Keep rows apart to choose the best step by and, where none is given for it, to measure on.

    Rows with the input of one that is kept apart are left out: nothing that is measured on is shown.
    Raises SoftPromptError where there are too few.
    """
    of_shown = len(rows.train) < LEAST
    pool, shares = (rows.shown, SHARES_SHOWN) if of_shown else (rows.train, SHARES)
    inputs = [_input(template, row) for row in pool]
    order = list({text: i for i, text in enumerate(inputs)}.values())  # an input that is repeated: once
    if len(order) < LEAST:
        repeated = f"{len(order)} differ, and " if len(order) < len(pool) else ""
        raise SoftPromptError(
            f"{len(rows.shown)} demonstrations and {len(rows.train)} requests with a target are too few",
            why=f"{repeated}of at least {LEAST} rows, some choose the best step and some are measured on",
            fix=f"give {LEAST} demonstrations or more, or {LEAST} requests with a target: --requests FILE",
        )
    random.Random(seed).shuffle(order)
    sizes = [max(2, round(share * len(order))) for share in shares]
    if rows.test:
        sizes[1] = 0
    dev, test = order[: sizes[0]], order[sizes[0] : sum(sizes)]
    apart = {inputs[i] for i in (*dev, *test)}
    left = [row for row, text in zip(pool, inputs, strict=True) if text not in apart]
    held = {"dev": [pool[i] for i in dev], "test": rows.test or [pool[i] for i in test]}
    return replace(rows, shown=left, **held) if of_shown else replace(rows, train=left, **held)


def _input(template: Template, row: Mapping[str, Any]) -> str:
    """Return what a row asks; white space makes no other input."""
    return same_form(template.render_input(row))


def has_target(template: Template, row: Mapping[str, Any]) -> bool:
    """Return whether a row has all that its target names."""
    return all(row.get(name) not in (None, "") for name in template.target_fields)


def _others(template: Template, source: Source | None, known: set[str]) -> list[Row]:
    """Read rows that are no demonstrations; each input counts once."""
    if source is None:
        return []
    rows = {_input(template, row): row for row in read_rows(source)}
    return [row for text, row in rows.items() if text not in known]


def _refuse_without_target(template: Template, rows: Sequence[Row], kind: str, fix: str) -> None:
    missing = [row.where for row in rows if not has_target(template, row)]
    if missing:
        raise SoftPromptError(
            f"{len(missing)} of {len(rows)} rows have no target: {', '.join(missing[:3])}",
            why=f"a {kind} needs it: it is read from {', '.join(template.target_fields)}",
            fix=fix,
        )
