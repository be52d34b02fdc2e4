"""An embedding row has a query, the document that fits it, and perhaps documents that do not.

All of them are inputs of the model, each read alone. Documents are written by the target's template; a text
that is too long loses its end, since a title or a question comes first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from softprompt.data.capacity import Need
from softprompt.data.compiled import Compiled
from softprompt.data.row import Row, short
from softprompt.data.row_fields import text_list
from softprompt.data.task import Limits
from softprompt.data.template_errors import missing_field
from softprompt.data.tokens import Ids, Tokens
from softprompt.errors import SoftPromptError

if TYPE_CHECKING:
    from softprompt.data.template import Rendered, Template


def of_row(rendered: Rendered, template: Template, documents: Compiled, *, is_whole: bool) -> Rendered:
    """Return the row with its documents and its score, where it is whole; else its query alone.

    `documents` is the target's template. Raises SoftPromptError for an empty text, for a negative that is the
    positive, and for a row without the score that `template.score_field` names.
    """
    row = rendered.row
    if not rendered.input.strip():
        raise SoftPromptError(
            f"{row.where}: the query is empty",
            why=f"template.input {template.input!r} gave {rendered.input!r}",
            fix="give the row a query, or take the row out",
        )
    if not is_whole:
        return rendered
    if template.score_field is not None:
        if row.get(template.score_field) is None:
            raise missing_field(template.score_field, "task.score", row)
        score = str(row[template.score_field]).strip()
        return replace(rendered, documents=(rendered.target,), score=score, references=(score,))
    negatives = _negatives(row, template, documents)
    if rendered.target in negatives:
        raise SoftPromptError(
            f"{row.where}: a negative is the positive: {short(rendered.target)}",
            why="a text cannot fit the query and not fit it",
            fix="correct the row, or take the negative out",
        )
    return replace(rendered, documents=(rendered.target, *negatives))


def field_of(documents: Compiled, source: str) -> str:
    """Return the only field that the documents' template names.

    Raises SoftPromptError for a template of several fields: a text alone does not fill it.
    """
    if len(documents.fields) != 1:
        raise SoftPromptError(
            "a text alone is no document of this template",
            why=f"template.target {source!r} names {len(documents.fields)} fields: "
            f"{', '.join(documents.fields) or 'none'}",
            fix="write a template.target of one field, and join fields in the rows",
        )
    return documents.fields[0]


def ids_of(tokens: Tokens, limits: Limits, text: str, where: str) -> tuple[Ids, int]:
    """Return (ids, tokens cut) of a text, which loses its last tokens where it is too long.

    Raises SoftPromptError, which names `where`, for a text that does not fit and may not be cut.
    """
    ids, most = tokens.of_input(text), limits.max_input_tokens
    need = Need(len(ids), 0)
    if most is None:
        limits.room.check(need, where)
    else:
        limits.room.check_answer(need, where)
    free = limits.room.for_input(need)
    if free is not None and free < 1:
        raise limits.room.no_room(need, where)
    limit = min((n for n in (most, free) if n is not None), default=len(ids))
    lost = max(0, len(ids) - limit)
    if lost:
        behind = max(0, len(ids) - tokens.special_ahead(ids, text) - len(tokens.ids(text)))
        behind = min(behind, limit - 1)
        ids = ids[: limit - behind] + ids[len(ids) - behind :]
    tokens.check_known(ids, where, text)
    return ids or tokens.stand_in(where), lost


def score_of(rendered: Rendered, score_range: tuple[float, float]) -> float:
    """Return a pair's score on a scale from 0 (the lowest of the range) to 1 (the highest).

    Raises SoftPromptError for a score that is no number, or outside the range.
    """
    low, high = score_range
    try:
        value = float(rendered.score)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SoftPromptError(
            f"{rendered.row.where}: the score {rendered.score!r} is not a number",
            why="task.score names the field of a pair's score",
            fix="correct the row, or take it out",
        )
    if not low <= value <= high:
        raise SoftPromptError(
            f"{rendered.row.where}: the score {value:g} is outside task.score_range=[{low:g}, {high:g}]",
            why="the range says which scores the most unlike and the most alike texts have",
            fix=f"task.score_range=[{min(low, value):g},{max(high, value):g}], or correct the row",
        )
    return (value - low) / (high - low)


def _negatives(row: Row, template: Template, documents: Compiled) -> Sequence[str]:
    field = template.negatives_field
    if field is None or row.get(field) is None or row[field] == "":
        return ()
    value = row[field]
    listed = isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))
    texts = text_list(row, field, "task.negatives") if listed else (str(value),)
    name = field_of(documents, template.target) if texts else ""
    written = [documents.render(Row({**row, name: text}, row.where), {}) for text in texts]
    if any(not text.strip() for text in written):
        raise SoftPromptError(
            f"{row.where}: a negative is empty",
            why=f"field '{field}' holds {short(row[field])}",
            fix="take the empty text out of the row",
        )
    return tuple(dict.fromkeys(written))
