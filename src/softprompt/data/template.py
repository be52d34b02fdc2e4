"""Rows are rendered as text by two Jinja2 templates, one for the input and one for the target.

Templates run in `data.jinja` and every name in them is a field of the row; a name that the row lacks is an
error. A field whose name is no word is written `{{ row["Review text"] }}`. This file knows no tokens, torch
or models: `chat` and `system` are only kept here, for the encoder.
"""

from __future__ import annotations

import copy
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2 import meta, nodes

from softprompt.data import template_limits
from softprompt.data.jinja import Fields, NotTextError, NullError, environment
from softprompt.data.row import Row, row_of, short
from softprompt.data.spelling import meant, spellings
from softprompt.data.values import Unusable, plain
from softprompt.errors import SoftPromptError, nearest

#: Jinja's message about a name, or a key of `row`, that does not exist.
_UNDEFINED = r"'(.+)' is undefined|'\S+\.Fields object' has no attribute '(.+)'"


@dataclass(frozen=True)
class Rendered:
    """A row as text has these parts.

    `target` is "" and `references` () if it was rendered without a target.
    """

    input: str
    target: str
    prompt: str | None  # the name of the row's prompt, where the template has a prompt field
    choices: tuple[str, ...] | None
    references: tuple[str, ...]  # the texts a prediction is scored against; default (target,)
    row: Row
    words: tuple[str, ...] = ()  # where the template has a field of words
    tags: tuple[str, ...] = ()  # one a word; () where it was rendered without a target
    end_taken_off: bool = False  # an end token was written at the end of the target, or of a choice
    respelled: tuple[tuple[str, str], ...] = ()  # names that the row spells otherwise: (as written, as read)


class Template:
    """Renders rows. The template strings are literal: leading and trailing spaces are kept.

    `mask` is what `{{ mask }}` writes into the input, for a masked-language model; None: a field like any
    other. Before a model is loaded, `mask_is_known=False` leaves the name to a field of the rows. With
    `words_field` and `tags_field` a row is a list of words and one of tags, and the templates are not used.
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
        mask_is_known: bool = True,
    ) -> None:
        self.input, self.target, self.chat, self.system = input, target, chat, system
        self.prompt_field, self.choices_field = prompt_field, choices_field
        self.references_field, self.mask, self.mask_is_known = references_field, mask, mask_is_known
        self.words_field, self.tags_field = words_field, tags_field
        if words_field and tags_field:  # then these two fields are the row, whatever the templates say
            input, target = ("{{ " + field + " }}" for field in (words_field, tags_field))
        self._input, self._input_names = _compile("template.input", input)
        self._target, self._target_names = _compile("template.target", target)
        self._input_fields = tuple(
            name for name in self._input_names.fields if mask is None or name != "mask"
        )
        self._target_fields = self._target_names.fields

    @property
    def names_no_field(self) -> tuple[str, ...]:
        """Return which of the two templates write the same text for every row."""
        if self.words_field and self.tags_field:
            return ()
        parts = {
            "template.input": (self._input_fields, self._input_names),
            "template.target": (self._target_fields, self._target_names),
        }
        return tuple(name for name, (fields, names) in parts.items() if not fields and not names.whole_row)

    @property
    def written_whole(self) -> tuple[str, ...]:
        """Return the input's fields that it writes as they are, without naming a part of them or a filter."""
        return self._input_names.whole_fields

    @property
    def target_fields(self) -> tuple[str, ...]:
        """Return the fields that the target's template names."""
        return self._target_fields

    def fields(self) -> tuple[str, ...]:
        """Return the fields that the two templates name, the input's first."""
        return tuple(dict.fromkeys((*self._input_fields, *self._target_fields)))

    @property
    def input_fields(self) -> tuple[str, ...]:
        """Return the fields that an input needs; a field of words is the only one where there is one."""
        return (self.words_field,) if self.words_field else self._input_fields

    def render(self, row: Mapping[str, Any] | str, *, with_target: bool = True) -> Rendered:
        """Render the row's texts. Without a target (to generate), its prompt's name may be absent too.

        A bare string is the only field of the input template.

        Raises SoftPromptError, naming `row.where`: a field that is missing or null, an empty target, a target
        outside the row's choices.
        """
        row = self._row(row)
        prompt = self._prompt(row, with_target)
        if self.words_field and self.tags_field:
            return _tagged(row, self.words_field, self.tags_field, prompt, with_target)
        text = self._text(self._input, "template.input", self._input_fields, row)
        choices = self._choices(row)
        target = written = ""
        references: tuple[str, ...] = ()
        if with_target:
            target = written = self._text(self._target, "template.target", self._target_fields, row)
            if not target.strip():
                raise SoftPromptError(
                    f"{row.where}: the target is empty",
                    why=f"template.target {self.target!r} gave {target!r}",
                    fix="give the row a target, or take the row out",
                )
            if choices is not None:
                known = meant(target, choices)
                if known is None:
                    raise _not_a_choice(target, choices, row)
                target = known
            references = self._references(row) or (target,)
        respelled = ((written, target),) if written != target else ()
        return Rendered(text, target, prompt, choices, references, row, respelled=respelled)

    def render_input(self, row_or_text: Mapping[str, Any] | str) -> str:
        """Render the input's text only; a bare string is the only field of the input template."""
        row = self._row(row_or_text)
        if self.words_field:
            return " ".join(_words(row, self.words_field, "task.words"))
        return self._text(self._input, "template.input", self._input_fields, row)

    def _row(self, row: Mapping[str, Any] | str) -> Row:
        if not isinstance(row, str):
            return row_of(row, "the row")
        if self.words_field:
            return Row({self.words_field: row.split()}, "the text")
        if len(self._input_fields) != 1:
            named = ", ".join(self._input_fields) or "none"
            raise SoftPromptError(
                "a bare text can be one field only",
                why=f"template.input {self.input!r} names {len(self._input_fields)}: {named}",
                fix='give the fields by name, as in {"' + (self._input_fields or ("input",))[0] + '": "…"}',
            )
        return Row({self._input_fields[0]: row}, "the text")

    def _text(self, template: jinja2.Template, name: str, fields: tuple[str, ...], row: Row) -> str:
        names = self._input_names if name == "template.input" else self._target_names
        values: dict[str, Any] = copy.deepcopy(dict(row)) if "append" in self._source(name) else dict(row)
        if names.whole_row or "row" not in row:  # a field named row does not hide the row in `row["…"]`
            values["row"] = Fields(row)
        if self.mask is not None and (self.mask_is_known or "mask" not in row):
            values["mask"] = self.mask
        try:
            with template_limits.spending():
                return template.render(values)
        except jinja2.UndefinedError as error:
            match = re.fullmatch(_UNDEFINED, error.message or "")
            if match and (match[1] or match[2]) not in row:
                raise _missing_field(match[1] or match[2], name, row, self._source(name)) from None
            raise SoftPromptError(f"{row.where}: {name}: {error.message}", why=_fields_of(row)) from None
        except NullError:
            null = [field for field in fields if field in row and row[field] is None]
            what = f"field '{null[0]}' is null" if len(null) == 1 else "a value is null"
            raise SoftPromptError(
                f"{row.where}: {what}, and {name} writes it",
                why="" if null else "null is also what the words none and None mean in a template",
                fix="fill it in, or take the row out"
                if name == "template.target"
                else "fill it in, or give it a default: {{ " + (null or ["field"])[0] + " or '' }}",
            ) from None
        except NotTextError as error:
            raise SoftPromptError(
                f"{row.where}: {name} writes {error}",
                why="this is Python's way of showing it, and no text to learn",
                fix=_parts_of(fields, row),
            ) from None
        except template_limits.LimitError as error:
            raise SoftPromptError(
                f"{row.where}: {name}: {error}",
                why="a template that would run or grow without end is stopped",
                fix="make the template simpler, or the row shorter",
            ) from None
        except SoftPromptError as error:  # a value that has no text
            place = "" if error.what.startswith(row.where) else f"{row.where}: {name}: "
            raise SoftPromptError(f"{place}{error.what}", error.why, error.fix) from None
        except RecursionError:
            raise SoftPromptError(
                f"{row.where}: {name} calls itself without end", fix="correct its macro"
            ) from None
        except MemoryError:
            raise SoftPromptError(f"{row.where}: {name} needs more memory than there is") from None
        except Exception as error:  # filters and the sandbox raise any exception
            message = str(error) if len(str(error)) <= 200 else str(error)[:200] + "…"
            raise SoftPromptError(f"{row.where}: {name} failed: {message}", why=_fields_of(row)) from None

    def _source(self, name: str) -> str:
        return self.input if name == "template.input" else self.target

    def _prompt(self, row: Row, required: bool) -> str | None:
        if self.prompt_field is None:
            return None
        name = name_in(row, self.prompt_field)
        if name is not None:
            return name
        if not required:
            return None
        if self.prompt_field in row:
            raise SoftPromptError(f"{row.where}: field '{self.prompt_field}' (data.prompt_field) is empty")
        raise _missing_field(self.prompt_field, "data.prompt_field", row)

    def _choices(self, row: Row) -> tuple[str, ...] | None:
        if self.choices_field is None:
            return None
        choices = _text_list(row, self.choices_field, "task.choices")
        if len(choices) < 2 or len(spellings(choices)) < len(choices):
            raise SoftPromptError(
                f"{row.where}: field '{self.choices_field}' needs at least two different choices, each once",
                why=f"it holds {list(choices)}" + (", of which two are the same" if len(choices) > 1 else ""),
                fix="write each choice once (white space and Unicode form do not tell them apart)"
                if len(choices) > 1
                else "give the row another choice, or take it out",
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
                fix="correct the row, or remove it",
            )
    target = " ".join(tags)
    return Rendered(text, target, prompt, None, (target,) if tags else (), row, words, tags)


def _words(row: Row, field: str, name: str) -> tuple[str, ...]:
    """Return texts without white space, of a field that lists them."""
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


@dataclass(frozen=True)
class _Names:
    """A template names these fields, in the order of their first mention."""

    fields: tuple[str, ...]
    whole_row: bool
    whole_fields: tuple[str, ...]  # those that are written as they are


def _compile(name: str, source: str) -> tuple[jinja2.Template, _Names]:
    if len(source) > template_limits.MAX_SOURCE:
        raise SoftPromptError(
            f"{name} is too long: {len(source):,} characters",
            f"at most {template_limits.MAX_SOURCE:,} are read",
        )
    sandbox = environment(name == "template.input")
    try:
        tree = sandbox.parse(source)
        names = _names(tree, source)
        return sandbox.compiled(tree), names
    except jinja2.TemplateSyntaxError as error:
        raise SoftPromptError(
            f"{name}, line {error.lineno}: {error.message}",
            why=f"it reads {source!r}" if len(source) <= 300 else f"it begins with {source[:300]!r}",
            fix=_syntax_fix(source),
        ) from None
    except (RecursionError, MemoryError, SyntaxError, ValueError, OverflowError) as error:
        deep = isinstance(error, (RecursionError, MemoryError, SyntaxError))
        raise SoftPromptError(
            f"{name} cannot be compiled",
            why="its parts are nested too deeply" if deep else str(error),
            fix="make the template simpler",
        ) from None


def _syntax_fix(source: str) -> str:
    for inner in re.findall(r"\{\{\s*(.*?)\s*\}\}", source):
        if re.fullmatch(r"[^\W\d][\w ./:&?#-]*", inner) and not inner.isidentifier():
            return f"a field whose name is no single word is written {_of_row(inner)}"
    return "fields are written {{ name }}; text that holds '{{' goes between {% raw %} and {% endraw %}"


def _names(tree: nodes.Template, source: str) -> _Names:
    """Return the names in a template; `row["Review text"]` and `row.text` are the fields of these names."""
    names = meta.find_undeclared_variables(tree)
    quoted: set[str] = set()
    whole = False
    for node in tree.find_all((nodes.Getitem, nodes.Getattr)):
        if isinstance(node.node, nodes.Name) and node.node.name == "row":
            whole = True
            if isinstance(node, nodes.Getattr):
                quoted |= set() if node.attr in dir(dict) else {node.attr}
            elif isinstance(node.arg, nodes.Const):
                quoted.add(str(node.arg.value))
    fields = (names - {"row"}) | quoted if whole else names
    # in the order of their first mention; the set's own order changes from run to run
    fields = tuple(sorted(fields, key=lambda field: (source.find(field), field)))
    written = {
        node.name
        for output in tree.find_all(nodes.Output)
        for node in output.nodes
        if isinstance(node, nodes.Name)
    }
    return _Names(fields, whole, tuple(field for field in fields if field in written))


def name_in(row: Mapping[str, Any], field: str) -> str | None:
    """Return the name (of a prompt) that a row gives in a field; None where it gives none.

    Raises SoftPromptError for a value that is no name: a list, an object.
    """
    value = plain(row.get(field))
    if value is None or (isinstance(value, str) and not value):
        return None
    if isinstance(value, Unusable):
        raise value.error()
    if isinstance(value, (list, dict)):
        raise SoftPromptError(
            f"{getattr(row, 'where', 'a row')}: field '{field}' names no prompt: it holds {short(value)}",
            fix="give one name a row",
        )
    return str(value)


def _text_list(row: Row, field: str, name: str) -> tuple[str, ...]:
    """Return the texts of a field that holds a list, or a JSON list as text (as a CSV cell must)."""
    if field not in row:
        raise _missing_field(field, name, row)
    value = row[field]
    if isinstance(value, str):
        try:
            value = plain(json.loads(value))
        except (ValueError, RecursionError):
            value = None
    items = value if isinstance(value, list) else [value]
    unusable = next((item for item in items if isinstance(item, Unusable)), None)
    if unusable is not None:
        raise unusable.error()
    if not isinstance(value, list) or any(not isinstance(item, (str, int, float)) for item in value):
        raise SoftPromptError(
            f"{row.where}: field '{field}' ({name}) is not a list of texts",
            why=f"it holds {row[field]!r}"[:200],
            fix="fill in what is missing in it" if None in items[1:] else 'write a list, as in ["yes", "no"]',
        )
    return tuple(str(item) for item in value)


def _fields_of(row: Row) -> str:
    names = [str(name) if len(str(name)) <= 60 else str(name)[:57] + "…" for name in list(row)[:30]]
    more = f", … and {len(row) - 30} more" if len(row) > 30 else ""
    return f"the row has: {', '.join(names) or 'no fields'}{more}"


def _of_row(field: str) -> str:
    return "{{ row[" + json.dumps(field, ensure_ascii=False) + "] }}"


def _missing_field(field: str, name: str, row: Row, source: str = "") -> SoftPromptError:
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
        fix = f"a field whose name is no single word is written {_of_row(guess)}"
    elif same:
        fix = f"the two differ in case, spaces or Unicode form: write {guess} as the rows have it"
    return SoftPromptError(
        f"{row.where}: no field '{field[:200]}', which {name} names{hint}", why=_fields_of(row), fix=fix
    )


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _parts_of(fields: tuple[str, ...], row: Row) -> str:
    """Return how to write a part of the first field that is a list or an object."""
    for field in fields:
        value, written = row.get(field), field if field.isidentifier() else _of_row(field)[3:-3]
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


def _not_a_choice(target: str, choices: tuple[str, ...], row: Row) -> SoftPromptError:
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
