"""Rows are rendered as text by Jinja2 templates: one for the input, one for the target.

Templates run in `data.jinja` and every name in them is a field of the row; a name that the row lacks is an
error. A field whose name is no word is written `{{ row["Review text"] }}`. This file knows no tokens, torch
or models: `chat` and `system` are only kept here, for the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from softprompt.data import embedding_texts
from softprompt.data.compiled import Compiled, compiled
from softprompt.data.row import Row, row_of
from softprompt.data.row_fields import name_in, text_list, words_of
from softprompt.data.spelling import meant, spellings
from softprompt.data.template_errors import missing_field, not_a_choice, same_answers
from softprompt.errors import SoftPromptError


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
    rejected: str = ""  # of a preference row: the answer that `target` is preferred to
    documents: tuple[str, ...] = ()  # of an embedding row: the target, which fits the input, then negatives
    score: str = ""  # of a pair of an embedding task: how alike its texts are


class Template:
    """Renders rows. The template strings are literal: leading and trailing spaces are kept.

    `mask` is what `{{ mask }}` writes into the input, for a masked-language model; None: a field like any
    other. Before a model is loaded, `mask_is_known=False` leaves the name to a field of the rows. With
    `words_field` and `tags_field` a row is a list of words and one of tags, and the templates are not used.
    `rejected` is a third template, for the answer that the target is preferred to. With `negatives_field` the
    target's template writes documents: the row's positive, and each text of that field where a row has it;
    `score_field` holds the score of such a pair.
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
        rejected: str | None = None,
        negatives_field: str | None = None,
        score_field: str | None = None,
        mask: str | None = None,
        mask_is_known: bool = True,
    ) -> None:
        self.input, self.target, self.chat, self.system = input, target, chat, system
        self.prompt_field, self.choices_field = prompt_field, choices_field
        self.references_field, self.mask, self.mask_is_known = references_field, mask, mask_is_known
        self.words_field, self.tags_field, self.rejected = words_field, tags_field, rejected
        self.negatives_field, self.score_field = negatives_field, score_field
        if words_field and tags_field:  # then these two fields are the row, whatever the templates say
            input, target = ("{{ " + field + " }}" for field in (words_field, tags_field))
        self._input = compiled("template.input", input, () if mask is None else ("mask",))
        self._target = compiled("template.target", target)
        self._rejected = None if rejected is None else compiled("template.rejected", rejected)

    @property
    def names_no_field(self) -> tuple[str, ...]:
        """Return which of the templates write the same text for every row."""
        if self.words_field and self.tags_field:
            return ()
        parts = self._parts
        return tuple(part.name for part in parts if not part.fields and not part.whole_row)

    @property
    def written_whole(self) -> tuple[str, ...]:
        """Return the input's fields that it writes as they are, without naming a part of them or a filter."""
        return self._input.whole_fields

    @property
    def target_fields(self) -> tuple[str, ...]:
        """Return the fields that the target's template names."""
        return self._target.fields

    def fields(self) -> tuple[str, ...]:
        """Return the fields that the templates name, the input's first."""
        return tuple(dict.fromkeys(field for part in self._parts for field in part.fields))

    @property
    def _parts(self) -> list[Compiled]:
        return [self._input, self._target, *([] if self._rejected is None else [self._rejected])]

    @property
    def input_fields(self) -> tuple[str, ...]:
        """Return the fields that an input needs; a field of words is the only one where there is one."""
        return (self.words_field,) if self.words_field else self._input.fields

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
        text = self._input.render(row, self._masks(row))
        choices = self._choices(row)
        target = written = ""
        references: tuple[str, ...] = ()
        if with_target:
            target = written = self._target.render(row, self._masks(row))
            if not target.strip():
                raise SoftPromptError(
                    f"{row.where}: the target is empty",
                    why=f"template.target {self.target!r} gave {target!r}",
                    fix="give the row a target, or take the row out",
                )
            if choices is not None:
                known = meant(target, choices)
                if known is None:
                    raise not_a_choice(target, choices, row)
                target = known
            references = self._references(row) or (target,)
        respelled = ((written, target),) if written != target else ()
        rejected = self._rejected_text(row, target) if with_target else ""
        rendered = Rendered(
            text, target, prompt, choices, references, row, respelled=respelled, rejected=rejected
        )
        if self.negatives_field is None:
            return rendered
        return embedding_texts.of_row(rendered, self, self._target, is_whole=with_target)

    def render_document(self, row: Mapping[str, Any] | str) -> Rendered:
        """Render a document alone, by the target's template; a bare string is its only field."""
        if isinstance(row, str):
            row = Row({embedding_texts.field_of(self._target, self.target): row}, "the text")
        row = row_of(row, "the row")
        text = self._target.render(row, {})
        return Rendered(text, "", self._prompt(row, False), None, (), row)

    def render_input(self, row_or_text: Mapping[str, Any] | str) -> str:
        """Render the input's text only; a bare string is the only field of the input template."""
        row = self._row(row_or_text)
        if self.words_field:
            return " ".join(words_of(row, self.words_field, "task.words"))
        return self._input.render(row, self._masks(row))

    def _row(self, row: Mapping[str, Any] | str) -> Row:
        if not isinstance(row, str):
            return row_of(row, "the row")
        if self.words_field:
            return Row({self.words_field: row.split()}, "the text")
        if len(self._input.fields) != 1:
            named = ", ".join(self._input.fields) or "none"
            raise SoftPromptError(
                "a bare text can be one field only",
                why=f"template.input {self.input!r} names {len(self._input.fields)}: {named}",
                fix='give the fields by name, as in {"' + (self._input.fields or ("input",))[0] + '": "…"}',
            )
        return Row({self._input.fields[0]: row}, "the text")

    def _rejected_text(self, row: Row, chosen: str) -> str:
        if self._rejected is None:
            return ""
        text = self._rejected.render(row, {})
        if not text.strip():
            raise SoftPromptError(
                f"{row.where}: the rejected answer is empty",
                why=f"template.rejected {self.rejected!r} gave {text!r}",
                fix="give the row a rejected answer, or take the row out",
            )
        if text == chosen:
            raise same_answers(row.where, text)
        return text

    def _masks(self, row: Row) -> dict[str, str]:
        if self.mask is None or not (self.mask_is_known or "mask" not in row):
            return {}
        return {"mask": self.mask}

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
        raise missing_field(self.prompt_field, "data.prompt_field", row)

    def _choices(self, row: Row) -> tuple[str, ...] | None:
        if self.choices_field is None:
            return None
        choices = text_list(row, self.choices_field, "task.choices")
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
        return text_list(row, self.references_field, "task.references")


def _tagged(row: Row, words_field: str, tags_field: str, prompt: str | None, with_target: bool) -> Rendered:
    words = words_of(row, words_field, "task.words")
    text, tags = " ".join(words), ()
    if not words:
        raise SoftPromptError(f"{row.where}: field '{words_field}' holds no word", fix="take the row out")
    if with_target:
        tags = words_of(row, tags_field, "task.tags")
        if len(tags) != len(words):
            raise SoftPromptError(
                f"{row.where}: {len(words)} words ('{words_field}') and {len(tags)} tags ('{tags_field}')",
                why="each word has one tag",
                fix="correct the row, or remove it",
            )
    target = " ".join(tags)
    return Rendered(text, target, prompt, None, (target,) if tags else (), row, words, tags)
