"""Rows become text: one Jinja2 template for the input, one for the target.

Templates run in Jinja's sandbox and every name in them is a field of the row; a name that the row
lacks is an error. This file knows nothing of tokens, torch or models: `chat` and `system` are only
kept here, for the encoder to act on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.sandbox import SandboxedEnvironment

from softprompt.data.sources import Row
from softprompt.errors import SoftPromptError, nearest


@dataclass(frozen=True)
class Rendered:
    """A row as text. `target` is "" and `references` () where it was rendered without a target."""

    input: str
    target: str
    prompt: str | None  # the name of the row's prompt, where the template has a prompt field
    choices: tuple[str, ...] | None
    references: tuple[str, ...]  # the texts a prediction is scored against; default (target,)
    row: Row
    words: tuple[str, ...] = ()  # where the template has a field of words
    tags: tuple[str, ...] = ()  # one a word; () where it was rendered without a target


class _Null(Exception):
    """A field that is null reached the text."""


def _not_null(value: Any) -> Any:
    if value is None:  # Jinja would write the word "None"
        raise _Null
    return value


def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        undefined=jinja2.StrictUndefined, finalize=_not_null, keep_trailing_newline=True, autoescape=False
    )
    environment.globals.clear()  # `range`, `dict`, … would hide that a field of that name is missing
    return environment


class Template:
    """Renders rows. The template strings are literal: leading and trailing spaces are kept.

    `mask` is what `{{ mask }}` writes into the input, for a masked-language model; None: a field like any
    other. With `words_field` and `tags_field` a row is a list of words and one of tags, and no template.
    """

    def __init__(
        self,
        input: str = "{{ input }}",
        target: str = "{{ target }}",
        *,
        chat: bool = False,
        system: str | None = None,
        prompt_field: str | None = None,
        choices_field: str | None = None,
        references_field: str | None = None,
        words_field: str | None = None,
        tags_field: str | None = None,
        mask: str | None = None,
    ) -> None:
        self.input, self.target, self.chat, self.system = input, target, chat, system
        self.prompt_field, self.choices_field = prompt_field, choices_field
        self.references_field, self.mask = references_field, mask
        self.words_field, self.tags_field = words_field, tags_field
        if words_field and tags_field:  # then these two fields are the row, whatever the templates say
            input, target = ("{{ " + field + " }}" for field in (words_field, tags_field))
        environment = _environment()
        self._input, fields = _compile(environment, "template.input", input)
        self._input_fields = tuple(field for field in fields if mask is None or field != "mask")
        self._target, self._target_fields = _compile(environment, "template.target", target)

    def fields(self) -> tuple[str, ...]:
        """The fields that the two templates name, the input's first."""
        return tuple(dict.fromkeys((*self._input_fields, *self._target_fields)))

    @property
    def input_fields(self) -> tuple[str, ...]:
        """The fields that an input needs; a field of words is the only one where there is one."""
        return (self.words_field,) if self.words_field else self._input_fields

    def render(self, row: Mapping[str, Any] | str, *, with_target: bool = True) -> Rendered:
        """The row's texts. Without a target (to generate), its prompt's name may be absent too.

        A bare string stands for the only field of the input template.

        Raises SoftPromptError, naming `row.where`: a field that is missing or null, an empty target,
        a target outside the row's choices.
        """
        row = self._row(row)
        prompt = self._prompt(row, with_target)
        if self.words_field and self.tags_field:
            return _tagged(row, self.words_field, self.tags_field, prompt, with_target)
        text = self._text(self._input, "template.input", self._input_fields, row)
        choices = self._choices(row)
        target, references = "", ()
        if with_target:
            target = self._text(self._target, "template.target", self._target_fields, row)
            if not target.strip():
                raise SoftPromptError(
                    f"{row.where}: the target is empty",
                    why=f"template.target {self.target!r} gave {target!r}",
                    fix="give the row a target, or take the row out",
                )
            if choices is not None and target not in choices:
                raise _not_a_choice(target, choices, row)
            references = self._references(row) or (target,)
        return Rendered(text, target, prompt, choices, references, row)

    def render_input(self, row_or_text: Mapping[str, Any] | str) -> str:
        """The input's text alone; a bare string stands for the only field of the input template."""
        row = self._row(row_or_text)
        if self.words_field:
            return " ".join(_words(row, self.words_field, "task.words"))
        return self._text(self._input, "template.input", self._input_fields, row)

    def _row(self, row: Mapping[str, Any] | str) -> Row:
        if not isinstance(row, str):
            return row if isinstance(row, Row) else Row(row)
        if self.words_field:
            return Row({self.words_field: row.split()}, "the text")
        if len(self._input_fields) != 1:
            named = ", ".join(self._input_fields) or "none"
            raise SoftPromptError(
                "a bare text can stand for one field only",
                why=f"template.input {self.input!r} names {len(self._input_fields)}: {named}",
                fix='give the fields by name, as in {"' + (self._input_fields or ("input",))[0] + '": "…"}',
            )
        return Row({self._input_fields[0]: row}, "the text")

    def _text(self, template: jinja2.Template, name: str, fields: tuple[str, ...], row: Row) -> str:
        try:
            return template.render(row if self.mask is None else {"mask": self.mask, **row})
        except jinja2.UndefinedError as error:
            match = re.fullmatch(r"'(.+)' is undefined", error.message or "")
            if match and match[1] not in row:
                raise _missing_field(match[1], name, row) from None
            raise SoftPromptError(f"{row.where}: {name}: {error.message}", why=_fields_of(row)) from None
        except _Null:
            null = [field for field in fields if field in row and row[field] is None]
            what = f"field '{null[0]}' is null" if len(null) == 1 else "a value is null"
            raise SoftPromptError(
                f"{row.where}: {what}, and {name} writes it",
                fix="fill it in, or give it a default: {{ " + (null or ["field"])[0] + " or '' }}",
            ) from None
        except Exception as error:  # filters and the sandbox raise what they please
            raise SoftPromptError(f"{row.where}: {name} failed: {error}", why=_fields_of(row)) from None

    def _prompt(self, row: Row, required: bool) -> str | None:
        if self.prompt_field is None:
            return None
        name = row.get(self.prompt_field)
        if name is not None and str(name):
            return str(name)
        if not required:
            return None
        if self.prompt_field in row:
            raise SoftPromptError(f"{row.where}: field '{self.prompt_field}' (data.prompt_field) is empty")
        raise _missing_field(self.prompt_field, "data.prompt_field", row)

    def _choices(self, row: Row) -> tuple[str, ...] | None:
        if self.choices_field is None:
            return None
        choices = _text_list(row, self.choices_field, "task.choices")
        if len(choices) < 2 or len(set(choices)) < len(choices):
            raise SoftPromptError(
                f"{row.where}: field '{self.choices_field}' needs at least two different choices",
                why=f"it holds {list(choices)}",
            )
        return choices

    def _references(self, row: Row) -> tuple[str, ...]:
        if self.references_field is None:
            return ()
        if self.references_field in row and row[self.references_field] is None:
            return ()
        return _text_list(row, self.references_field, "task.references")


def _tagged(row: Row, words_field: str, tags_field: str, prompt: str | None, with_target: bool) -> Rendered:
    words = _words(row, words_field, "task.words")
    text, tags = " ".join(words), ()
    if not words:
        raise SoftPromptError(f"{row.where}: field '{words_field}' holds no word", fix="take the row out")
    if with_target:
        tags = _words(row, tags_field, "task.tags")
        if len(tags) != len(words):
            raise SoftPromptError(
                f"{row.where}: {len(words)} words ('{words_field}') and {len(tags)} tags ('{tags_field}')",
                why="each word has one tag",
                fix="mend the row, or take it out",
            )
    target = " ".join(tags)
    return Rendered(text, target, prompt, None, (target,) if tags else (), row, words, tags)


def _words(row: Row, field: str, name: str) -> tuple[str, ...]:
    """Texts without white space, of a field that lists them."""
    words = _text_list(row, field, name)
    if odd := next((word for word in words if len(word.split()) != 1), None):
        raise SoftPromptError(
            f"{row.where}: {odd!r} in field '{field}' is not one word",
            why="words and tags hold no white space",
            fix="split it (and give each part a tag), or write '_' for the space",
        )
    if "" in words:
        raise SoftPromptError(
            f"{row.where}: an empty text in field '{field}'", fix="take it out, and its tag"
        )
    return words


def _compile(
    environment: SandboxedEnvironment, name: str, source: str
) -> tuple[jinja2.Template, tuple[str, ...]]:
    try:
        tree = environment.parse(source)
        fields = meta.find_undeclared_variables(tree)
        compiled = environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise SoftPromptError(
            f"{name}, line {error.lineno}: {error.message}",
            why=f"it reads {source!r}",
            fix="fields are written {{ name }}; text that holds '{{' goes between {% raw %} and {% endraw %}",
        ) from None
    # In the order of their first mention; the set's own order changes from run to run.
    return compiled, tuple(sorted(fields, key=lambda field: (source.find(field), field)))


def _text_list(row: Row, field: str, name: str) -> tuple[str, ...]:
    """The texts of a field that holds a list, or a JSON list as text (as a CSV cell must)."""
    if field not in row:
        raise _missing_field(field, name, row)
    value = row[field]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = None
    if not isinstance(value, (list, tuple)) or any(isinstance(v, (list, dict)) or v is None for v in value):
        raise SoftPromptError(
            f"{row.where}: field '{field}' ({name}) is not a list of texts",
            why=f"it holds {row[field]!r}"[:200],
            fix='write a list, as in ["yes", "no"]',
        )
    return tuple(str(item) for item in value)


def _fields_of(row: Row) -> str:
    return f"the row has: {', '.join(map(str, row)) or 'no fields'}"


def _missing_field(field: str, name: str, row: Row) -> SoftPromptError:
    guess = nearest(field, list(row))
    hint = f"; did you mean '{guess}'?" if guess else ""
    return SoftPromptError(
        f"{row.where}: no field '{field}', which {name} names{hint}",
        why=_fields_of(row),
        fix=f"change {name} to a field of the rows, or add the field",
    )


def _not_a_choice(target: str, choices: tuple[str, ...], row: Row) -> SoftPromptError:
    guess = nearest(target, choices)
    hint = f"; did you mean '{guess}'?" if guess else ""
    by_number = target.strip().isdigit()
    return SoftPromptError(
        f"{row.where}: target {target!r} is not one of the choices{hint}",
        why=f"choices: {', '.join(map(repr, choices))}",
        fix="where the row gives the choice's number, write template.target as {{ choices[answer] }}"
        if by_number
        else "the target must equal a choice, spaces and case included",
    )
