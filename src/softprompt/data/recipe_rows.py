"""A recipe's rows are read and split here, by what must stay together and what must be there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._system.notes import note
from ..config.schema import Recipe
from .from_recipe import template_of
from .labels import kinds
from .row import canonical
from .sources import Row, read_rows
from .split import Kinds, limit_rows, shared_queries, split_rows
from .template_checks import check_rows


def read_split(
    recipe: Recipe,
    rows: Iterable[Mapping[str, Any]] | None = None,
    dev_rows: Iterable[Mapping[str, Any]] | None = None,
) -> tuple[list[Row], list[Row]]:
    """Read the recipe's training rows and dev rows; the same files give the same rows."""
    data, seed, kinds_of = recipe.data, recipe.train.seed, kinds_in(recipe)
    every = read_rows(rows if rows is not None else data.train, first=data.limit)
    train = limit_rows(every, data.limit, seed, kinds=kinds_of, together=query_of(recipe))
    check_rows(template_of(recipe), train)
    if dev_rows is not None or data.dev is not None:
        held = read_rows(dev_rows if dev_rows is not None else str(data.dev), split="dev")
        for text in shared_queries({"training": train, "dev": held}, query_of(recipe)):
            note(text)
    else:
        train, held = split_rows(train, data.dev_fraction, seed, key=same_side(recipe), kinds=kinds_of)
    return train, limit_rows(held, data.dev_limit, seed, together=query_of(recipe))


def same_side(recipe: Recipe) -> Callable[[Mapping[str, Any]], str]:
    """Return what rows must differ in to be split: their inputs, or the queries of a reranker."""
    return query_of(recipe) or template_of(recipe).render_input


def query_of(recipe: Recipe) -> Callable[[Mapping[str, Any]], str] | None:
    """Return what tells a reranker's queries apart; None for other tasks.

    A query is ranked over all of its rows, so a limit takes all of them or none.
    """
    field = recipe.task.query
    return None if field is None else lambda row: canonical({field: row.get(field)})


def kinds_in(recipe: Recipe) -> Kinds:
    """Return the kinds of rows that the training rows must include: all labels and all prompts."""
    labelled = recipe.task.kind in ("classification", "token-classification")
    return kinds(template_of(recipe), labelled=labelled, prompt_field=recipe.data.prompt_field)
