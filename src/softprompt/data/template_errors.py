"""Errors of templates name the row, the field, and the form that works."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping

import jinja2

from softprompt.data.jinja import NotTextError, NullError
from softprompt.data.row import Row, short
from softprompt.data.template_limits import LimitError
from softprompt.errors import SoftPromptError, nearest

#: Jinja's message about a name, or a key of `row`, that does not exist.
_UNDEFINED = r"'(.+)' is undefined|'\S+\.Fields object' has no attribute '(.+)'"


def rendering_error(
    error: Exception, row: Row, name: str, source: str, fields: tuple[str, ...]
) -> SoftPromptError:
    """Return the error for an exception that a template raised on a row."""
    where = f"{row.where}: {name}"
    if isinstance(error, jinja2.UndefinedError):
        match = re.fullmatch(_UNDEFINED, error.message or "")
        if match and (match[1] or match[2]) not in row:
            return missing_field(match[1] or match[2], name, row, source)
        return SoftPromptError(f"{where}: {error.message}", why=fields_of(row))
    if isinstance(error, NullError):
        null = [field for field in fields if field in row and row[field] is None]
        subject = f"field '{null[0]}' is null" if len(null) == 1 else "a value is null"
        return SoftPromptError(
            f"{row.where}: {subject}, and {name} writes it",
            why="" if null else "null is also what the words none and None mean in a template",
            fix="fill it in, or remove the row"
            if name == "template.target"
            else "fill it in, or give it a default: {{ " + (null or ["field"])[0] + " or '' }}",
        )
    if isinstance(error, NotTextError):
        return SoftPromptError(
            f"{where} writes {error}",
            why="this is Python's way of showing it, and no text to learn",
            fix=parts_of(fields, row),
        )
    if isinstance(error, LimitError):
        return SoftPromptError(
            f"{where}: {error}",
            why="a template that would run or grow without end is stopped",
            fix="make the template simpler, or the row shorter",
        )
    if isinstance(error, SoftPromptError):  # a value that has no text
        place = "" if error.what.startswith(row.where) else f"{where}: "
        return SoftPromptError(f"{place}{error.what}", error.why, error.fix)
    if isinstance(error, RecursionError):
        return SoftPromptError(f"{where} calls itself without end", fix="correct its macro")
    if isinstance(error, MemoryError):
        return SoftPromptError(f"{where} needs more memory than there is")
    message = str(error) if len(str(error)) <= 200 else str(error)[:200] + "…"  # filters raise any exception
    return SoftPromptError(f"{where} failed: {message}", why=fields_of(row))


def fields_of(row: Row) -> str:
    names = [str(name) if len(str(name)) <= 60 else str(name)[:57] + "…" for name in list(row)[:30]]
    more = f", … and {len(row) - 30} more" if len(row) > 30 else ""
    return f"the row has: {', '.join(names) or 'no fields'}{more}"


def of_row(field: str) -> str:
    return "{{ row[" + json.dumps(field, ensure_ascii=False) + "] }}"


def missing_field(field: str, name: str, row: Row, source: str = "") -> SoftPromptError:
    # Jinja computes `{{ is-spam }}` and `{{ Review.text }}`: the field that is meant is looked for in the row
    meant = [
        key
        for key in row
        if not key.isidentifier() and re.search(r"\{\{\s*" + re.escape(key.strip()), source)
    ]
    same = [key for key in row if key != field and _folded(key) == _folded(field)]
    guess = next(iter(meant or same), None) or nearest(field[:200], list(row)[:1000])
    hint = f"; did you mean '{guess}'?" if guess else ""
    fix = f"change {name} to a field of the rows, or add the field"
    if guess is not None and not guess.isidentifier() and source:
        fix = f"a field whose name is no single word is written {of_row(guess)}"
    elif same:
        fix = f"the two differ in case, spaces or Unicode form: write {guess} as the rows have it"
    return SoftPromptError(
        f"{row.where}: no field '{field[:200]}', which {name} names{hint}", why=fields_of(row), fix=fix
    )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def parts_of(fields: tuple[str, ...], row: Row) -> str:
    """Return how to write a part of the first field that is a list or an object."""
    for field in fields:
        value, written = row.get(field), field if field.isidentifier() else of_row(field)[3:-3]
        if isinstance(value, Mapping):
            key = next((key for key in value if isinstance(key, str)), "key")
            inner = f"{written}.{key}" if key.isidentifier() else f'{written}["{key}"]'
            return (
                "name a part of it: {{ " + inner + ("[0]" if isinstance(value.get(key), list) else "") + " }}"
            )
        if isinstance(value, list):
            lists = [v for v in row.values() if isinstance(v, list)]
            if len(lists) == len(row) > 1 and len({len(v) for v in lists}) == 1:
                return (
                    "every field is a list of one length: this is a batch of rows, give the rows one by one"
                )
            return (
                "name one of it, {{ " + written + "[0] }}, or join them: {{ " + written + " | join(', ') }}"
            )
    return "name a part that is text"


def not_a_choice(target: str, choices: tuple[str, ...], row: Row) -> SoftPromptError:
    guess = nearest(target, choices)
    hint = f"; did you mean '{guess}'?" if guess else ""
    by_number = target.strip().isdigit()
    return SoftPromptError(
        f"{row.where}: target {target!r} is not one of the choices{hint}",
        why=f"choices: {', '.join(map(repr, choices))}",
        fix="where the row gives the choice's number, write template.target as {{ choices[answer] }}"
        if by_number
        else "the target must be one of the choices, case included",
    )


def same_answers(where: str, text: str) -> SoftPromptError:
    """Return the error for a preference row whose two answers are the same."""
    return SoftPromptError(
        f"{where}: the chosen and the rejected answer are the same: {short(text)}",
        why="neither is preferred to the other, so the row teaches nothing",
        fix="correct the row, or take it out",
    )
