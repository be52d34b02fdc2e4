"""Rows are compared with their template before training: some cases are refused, others are noted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from softprompt._system.notes import note
from softprompt.data.row import Row, short
from softprompt.data.row_fields import name_in
from softprompt.data.template import Template
from softprompt.data.values import ClassNumber
from softprompt.errors import SoftPromptError

LOOKED_AT = 1000  # rows


def check_rows(template: Template, rows: Sequence[Row], say: Callable[[str], None] = note) -> None:
    """Raise SoftPromptError for a template that names no field of the rows, and note what else is odd."""
    columns = list(dict.fromkeys(name for row in rows[:LOOKED_AT] for name in row))
    texts = {"template.input": template.input, "template.target": template.target}
    if template.rejected is not None:
        texts["template.rejected"] = template.rejected
    for name in template.names_no_field:
        raise _names_none(name, texts[name], columns)
    if template.system is not None and re.search(r"\{\{|\{%", template.system):
        raise SoftPromptError(
            "template.system is no template: it would be read as it is",
            why=f"it reads {short(template.system)}",
            fix="write fields into template.input; template.system is one text for all rows",
        )
    if template.prompt_field:
        for row in rows:
            name_in(row, template.prompt_field)
    if template.words_field:
        return
    for text in _oddities(template, rows[:LOOKED_AT], columns, texts):
        say(text)


def _names_none(name: str, source: str, columns: Sequence[str]) -> SoftPromptError:
    fix = "fields are written {{ text }}, by the name that they have in the rows"
    for style, column in _other_styles(source, columns, strict=False):
        written = column if column.isidentifier() else f'row["{column}"]'
        fix = f"it holds {style}; fields are written {{{{ {written} }}}}"
        break
    else:
        inner = re.findall(r"\{\{\s*([^{}|]*?)\s*\}\}", source)
        if hidden := next((name for text in inner if (name := text.strip("'\"")) in columns), None):
            if re.search(r"\{#|\{%-?\s*raw|\{\{\s*[\"'][^}]*\{\{", source):
                fix = "nothing is read in a comment, {% raw %} or quotes: write {{ field }} outside"
            else:
                fix = f'{hidden} is no name in a template; the field is written {{{{ row["{hidden}"] }}}}'
    return SoftPromptError(
        f"{name} names no field, so that all rows would have the same text",
        why=f"it reads {short(source)}; the rows have: {short(', '.join(columns))}",
        fix=fix,
    )


def _other_styles(source: str, columns: Sequence[str], strict: bool = True) -> Iterator[tuple[str, str]]:
    """Yield (text, column) of fields that are written in another language's style."""
    for column in columns:
        name = re.escape(column)
        styles = [r"(?<!\{)\{\s*%s\s*(?:![rsa])?(?::[^{}]*)?\}(?!\})", r"\$\{%s\}|\$%s\b", r"%%\(%s\)[sdrf]"]
        styles += [] if strict else [r"<%s>", r"\[%s\]"]
        for style in styles:
            if match := re.search(style.replace("%s", name.replace("\\", "\\\\")).replace("%%", "%"), source):
                yield match[0], column
                break


def _oddities(
    template: Template, rows: Sequence[Row], columns: Sequence[str], texts: dict[str, str]
) -> Iterator[str]:
    for name, source in {**texts, "template.system": template.system or ""}.items():
        for style, column in _other_styles(source, columns):
            written = column if column.isidentifier() else f'row["{column}"]'
            hint = (
                f"a field is written {{{{ {written} }}}}"
                if name != "template.system"
                else "it is no template"
            )
            yield f"{name} holds {style} as plain text: {hint}"
    for hidden, taken in (("mask", template.mask is not None and template.mask_is_known), ("row", True)):
        if taken and hidden in columns and re.search(rf"\b{hidden}\b", template.input + template.target):
            means = "the model's own mask" if hidden == "mask" else 'the whole row in row["…"]'
            yield f"the column '{hidden}' is hidden: {hidden} is {means}; the column is row[\"{hidden}\"]"
    yield from _whole(template, rows)
    yield from _classes(template, rows)
    yield from _same(template, rows)


def _whole(template: Template, rows: Sequence[Row]) -> Iterator[str]:
    for field in template.written_whole:
        row = next((row for row in rows if isinstance(row.get(field), (list, dict))), None)
        if row is not None:
            kind = "a list" if isinstance(row[field], list) else "an object"
            items = field if isinstance(row[field], list) else f"{field} | items | map('last')"
            yield (
                f"field '{field}' is {kind} ({row.where}) and template.input writes it whole, "
                f"as Python shows it; name a part of it, or join it: {{{{ {items} | join(', ') }}}}"
            )


def _classes(template: Template, rows: Sequence[Row]) -> Iterator[str]:
    for field in template.target_fields:
        value = next((row[field] for row in rows if isinstance(row.get(field), ClassNumber)), None)
        if value is not None and re.fullmatch(
            r"\s*\{\{\s*" + re.escape(field) + r"\s*\}\}\s*", template.target
        ):
            names = ", ".join(f"{number} {name}" for number, name in enumerate(value.names[:8]))
            listed = "[" + ", ".join(map(repr, value.names)) + "]"
            yield (
                f"the targets are numbers, though '{field}' knows their names ({names}); to learn the names: "
                f'template.target="{{{{ {listed if len(listed) < 200 else "names"}[{field}] }}}}"'
            )


def _same(template: Template, rows: Sequence[Row]) -> Iterator[str]:
    inputs: set[str] = set()
    targets: set[str] = set()
    blank: list[Row] = []
    for row in rows:
        try:
            rendered = template.render(row)
        except SoftPromptError:
            return  # reported where the rows are encoded
        inputs.add(rendered.input)
        targets.add(rendered.target)
        if not rendered.input.strip():
            blank.append(row)
    if len(rows) < 2:
        return
    if blank:
        yield f"{len(blank)} of {len(rows)} rows have an empty input (the first is {blank[0].where})"
    elif len(inputs) == 1:
        yield f"all {len(rows)} rows have the same input, {short(next(iter(inputs)))}: look at template.input"
    if len(targets) == 1:
        yield f"all {len(rows)} rows have the same target, {short(next(iter(targets)))}"
