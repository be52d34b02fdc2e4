"""The rows of a reranker are scored: the documents of a query are ranked by the numbers of their rows.

A row is a query with one document, and its target says how well it fits: a number above 0 where it does.
Rows with the same value in the field `task.query` are one query. Documents with the same number that do not
fit come first, so that a model that gives all documents one number gets the last ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..config.schema import Recipe
from ..data.example import Example
from ..data.row import canonical
from ..data.template import Template
from ..data.template_errors import missing_field
from ..errors import SoftPromptError
from .records import Record
from .retrieval import ranks_of


def with_ranks(records: Sequence[Record], examples: Sequence[Example], field: str) -> list[Record]:
    """Return the records, each with the ranks of all documents that fit its query.

    The first row of a query counts for it. A query without such a document has no ranks, and no weight in the
    metrics. `field` names the query of a row. Raises SoftPromptError for a row without the field, and where
    no document of any query fits.
    """
    queries: dict[tuple[int, str], list[int]] = {}
    for index, example in enumerate(examples):
        row = example.rendered.row
        if row.get(field) is None:
            raise missing_field(field, "task.query", row)
        queries.setdefault((example.prompt, canonical({field: row[field]})), []).append(index)
    results = list(records)
    for rows in queries.values():
        numbers = torch.tensor([float(records[i].prediction) for i in rows], dtype=torch.float64)
        fitting = [place for place, i in enumerate(rows) if (examples[i].value or 0.0) > 0]
        ranks = ranks_of(numbers, fitting) if fitting else ()
        for i in rows:
            results[i] = replace(records[i], ranks=ranks, query_rows=int(i == rows[0]))
    if not any(record.ranks for record in results):
        raise SoftPromptError(
            f"no document fits any of the {len(queries)} queries",
            why="a document fits where its row's number is above 0, and none is",
            fix="give the documents that fit a number above 0, or leave task.query out",
        )
    return results


def document_field(recipe: Recipe, template: Template) -> str:
    """Return the field of a reranker's document.

    Raises SoftPromptError for a prompt that is none, and where several fields may be the document's.
    """
    query = recipe.task.query
    if query is None:
        raise SoftPromptError(
            "this prompt ranks no documents",
            why=f"it was trained for {recipe.task.kind}, and no field of its rows is the query's",
            fix="tune a prompt with task.kind=regression and task.query=FIELD (docs/embeddings.md)",
        )
    others = [name for name in template.input_fields if name != query]
    if len(others) != 1:
        raise SoftPromptError(
            "a text alone is no document of this template",
            why=f"beside the query it names {len(others)} fields: {', '.join(others) or 'none'}",
            fix="give whole rows: tuned.generate(rows) has their numbers",
        )
    return others[0]
