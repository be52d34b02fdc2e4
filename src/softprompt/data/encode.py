"""Rendered rows become token ids: input, target, candidates and the number of the prompt.

Input and target are encoded separately, because vectors may come between them. This file knows a tokenizer
(any of `transformers`), and no torch, models, padding or methods.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from softprompt.data import embedding_texts
from softprompt.data.candidates import distinct_ids, label_ids
from softprompt.data.capacity import Room
from softprompt.data.chat import Chat
from softprompt.data.demonstrations import split_input
from softprompt.data.example import Example
from softprompt.data.input_ids import input_ids, shorten, written
from softprompt.data.labels import distinct_labels, not_a_label
from softprompt.data.round_trip import end_texts, without_end
from softprompt.data.row import row_of
from softprompt.data.row_errors import each
from softprompt.data.spelling import distinct, meant
from softprompt.data.targets import answer_places, rejected_ids, target_ids, target_value
from softprompt.data.task import ChatSettings, Limits, ModelSide, Task
from softprompt.data.task_checks import check_task
from softprompt.data.template import Rendered, Template
from softprompt.data.tokens import Ids, Tokens
from softprompt.errors import SoftPromptError, unknown


class Encoder:
    """Encodes rows of one task for one tokenizer.

    `template.chat` puts inputs through the tokenizer's chat template, after the text of `template.system`.
    Where a task of labels names none, the first `encode_rows` (the training rows) decides them; see `labels`.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: Template,
        task: Task | None = None,
        model: ModelSide | None = None,
        limits: Limits | None = None,
        chat: ChatSettings | None = None,
    ) -> None:
        self.tokenizer, self.template = tokenizer, template
        self.task, self.model, self.limits = task or Task(), model or ModelSide(), limits or Limits()
        self.kind, self.prompts = self.task.kind, tuple(self.task.prompts)
        self._tokens = Tokens(tokenizer, self.model, template.chat, template.system, chat or ChatSettings())
        self.ends = self._tokens.end_ids
        self._end_texts = end_texts(tokenizer, self.ends)
        self.turns: tuple[tuple[str, str], ...] = ()  # (input, target) shown ahead of each input (few-shot)
        self.continues = (
            False  # inputs follow demonstrations that the vectors hold: see `data.demonstrations`
        )
        self.labels: tuple[str, ...] | None = None
        self.label_ids: tuple[Ids, ...] | None = None
        check_task(self._tokens, self.task, template)
        if self.task.labels is not None:
            self._set_labels(self.task.labels)

    def encode(
        self, row: Mapping[str, Any] | str, with_target: bool = True, *, prompt: str | None = None
    ) -> Example:
        """Encode one row; `prompt` overrides the name that the row carries.

        A bare string (without a target) is the only field of the input template. Raises SoftPromptError that
        names the row: what `Template.render` raises, an unknown prompt or label, a row that does not fit the
        context.
        """
        rendered = self.render(row, with_target)
        where = rendered.row.where
        index = self._prompt(prompt if prompt is not None else rendered.prompt, where)
        if self.kind == "embedding":
            return self._texts(rendered, index)
        candidates = self._candidates(rendered)
        target, rejected, cut = (), (), 0
        if with_target:
            most = self.limits.max_target_tokens
            target, cut = target_ids(self._tokens, self.task, rendered, candidates, self.labels or (), most)
            rejected, more = rejected_ids(self._tokens, rendered, target, most)
            cut += more
        longest = max([len(target), len(rejected), *map(len, candidates or ())])
        if self.model.answers != "next":  # then they take no room in the row
            longest = 0
        ids, lost = input_ids(self._tokens, self.limits, rendered.input, longest, where, self.turns)
        read = (target, rejected, *(candidates or ())) if self.model.answers != "head" else ()
        begin: Ids = ()
        if self.continues and not self.turns:
            begin, ids = split_input(self._tokens, ids, rendered.input, is_whole=not lost)
        texts = (rendered.input, rendered.target, *(rendered.choices or ()), rendered.rejected)
        texts += (self.template.system or "",)
        self._tokens.check_known((*ids, *(token for part in read for token in part)), where, " ".join(texts))
        places = answer_places(self._tokens, self.task, rendered, ids, lost, self.label_ids)
        value = target_value(rendered) if self.kind == "regression" and with_target else None
        return Example(
            ids, target, index, rendered, candidates, cut + lost, places, value, rejected, begin=begin
        )

    def encode_document(self, row: Mapping[str, Any] | str, *, prompt: str | None = None) -> Example:
        """Encode a document of an embedding task alone, as an input. Raises SoftPromptError as `encode`."""
        rendered = self.template.render_document(row)
        where = rendered.row.where
        if not rendered.input.strip():
            raise SoftPromptError(f"{where}: the document is empty", fix="give it a text, or take it out")
        return self._texts(rendered, self._prompt(prompt if prompt is not None else rendered.prompt, where))

    def _texts(self, rendered: Rendered, prompt: int) -> Example:
        """Encode the query of an embedding row and its documents, each as an input of its own."""
        where, limits = rendered.row.where, self.limits
        ids, cut = embedding_texts.ids_of(self._tokens, limits, rendered.input, where)
        documents = [embedding_texts.ids_of(self._tokens, limits, t, where) for t in rendered.documents]
        scored = self.task.score_range if rendered.documents else None
        value = None if scored is None else embedding_texts.score_of(rendered, scored)
        return Example(
            ids,
            (0,) if documents else (),
            prompt,
            rendered,
            None,
            cut + sum(lost for _, lost in documents),
            value=value,
            documents=tuple(each for each, _ in documents),
        )

    def render(self, row: Mapping[str, Any] | str, with_target: bool = True) -> Rendered:
        """Render the row's texts, with the label that the row spells.

        End tokens at the end of targets, choices and references are removed.
        """
        rendered = self._without_ends(self.template.render(row, with_target=with_target))
        if not self.task.has_labels or not self.labels or not with_target:
            return rendered
        written = rendered.tags or (rendered.target,)
        names = tuple(self._label(rendered, text) for text in written)
        if names == written:
            return rendered
        target = " ".join(names)
        return replace(
            rendered,
            target=target,
            tags=names if rendered.tags else (),
            references=tuple(target if r == rendered.target else r for r in rendered.references),
            respelled=tuple(pair for pair in zip(written, names, strict=True) if pair[0] != pair[1]),
        )

    def _without_ends(self, rendered: Rendered) -> Rendered:
        if self.model.answers != "next" or rendered.target in (self.labels or ()):
            return rendered
        choices = None
        if rendered.choices is not None:
            choices = tuple(without_end(choice, self._end_texts) for choice in rendered.choices)
        target = without_end(rendered.target, self._end_texts)
        rejected = without_end(rendered.rejected, self._end_texts)
        if (target, rejected, choices) == (rendered.target, rendered.rejected, rendered.choices):
            return rendered
        if rendered.target and not target:
            raise SoftPromptError(
                f"{rendered.row.where}: the target is empty",
                why=f"it holds the end token alone: {rendered.target!r}",
                fix="give the row a target, or remove the row",
            )
        references = tuple(without_end(text, self._end_texts) for text in rendered.references)
        return replace(
            rendered,
            target=target,
            choices=choices,
            references=references,
            end_taken_off=True,
            rejected=rejected,
        )

    def encode_rows(
        self, rows: Iterable[Mapping[str, Any]], with_target: bool = True, *, prompt: str | None = None
    ) -> list[Example]:
        """Encode all rows; one error names the first few that cannot be used, and counts them all."""
        return self.encode_parts([list(rows)], with_target, prompt=prompt)[0]

    def encode_parts(
        self,
        parts: Sequence[Sequence[Mapping[str, Any]]],
        with_target: bool = True,
        *,
        prompt: str | None = None,
    ) -> list[list[Example]]:
        """Encode several lists, with one error for them all; the first one decides the labels."""
        rows = [row for part in parts for row in part]
        if self.task.has_labels and self.labels is None and rows:
            labels = distinct_labels(parts[0], self.template)
            if self.model.answers == "next":
                labels = distinct(without_end(label, self._end_texts) for label in labels)
            self._set_labels(labels)
        examples = iter(each(rows, lambda row: self.encode(row, with_target, prompt=prompt)))
        return [[next(examples) for _ in part] for part in parts]

    def shorten(self, text: str) -> str:
        """Return the text without the first tokens that `max_input_tokens` cuts off."""
        return shorten(self._tokens, self.limits.max_input_tokens, text)

    def ids_after(self, turns: Sequence[tuple[str, str]], text: str) -> Ids:
        """Return the token ids of an input after demonstrations (input, target), however long they are."""
        if self.template.chat:
            return self._tokens.of_chat(text, "a demonstration", turns)
        return self._tokens.of_input(written(self._tokens, text, turns))

    @property
    def conversation(self) -> Chat:
        """Return the writer of conversations, in chat mode."""
        return self._tokens.conversation

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids up to an end token, without special tokens and outer white space."""
        kept: list[int] = []
        for token in ids:
            if int(token) in self.ends:
                break
            kept.append(int(token))
        # A clean-up would remove spaces that the target texts have.
        return self._tokens.decode(kept, skip_special_tokens=True).strip()

    def settled(self, new_tokens: int | None = None) -> Encoder:
        """Return the encoder of a tuned prompt, which writes `new_tokens` (None: its recipe's number)."""
        room = self.limits.room
        new = room.new_tokens if new_tokens is None else min(new_tokens, room.new_tokens)
        return self.within(replace(room, is_settled=True, new_tokens=new))

    def within(self, room: Room) -> Encoder:
        """Return the same encoder for inputs that have other positions."""
        result = copy.copy(self)
        result.limits = replace(self.limits, room=room)
        return result

    def begun(self) -> Encoder:
        """Return the same encoder with whole inputs, as a model without vectors reads them."""
        result = copy.copy(self)
        result.continues = False
        return result

    def reading(self, tokenizer: Any) -> Encoder:
        """Return the same encoder with another tokenizer of the same vocabulary."""
        result = copy.copy(self)
        result.tokenizer, result._tokens = tokenizer, replace(self._tokens, tokenizer=tokenizer)
        return result

    def following(self, before: str, text: str) -> Ids:
        """Return the token ids of a target after the rendered input `before`, with the space between them."""
        return self._tokens.of_continuation(self._tokens.after(before, text.lstrip()))

    def of_input(self, ids: Ids, text: str, prompt: int) -> Example:
        """Return an example of an input that was encoded elsewhere, with the labels as its candidates.

        Raises SoftPromptError for a task whose candidates come from a row.
        """
        if self.kind != "classification":
            raise SoftPromptError(
                "the choices are not given", why="they are a field of each row", fix="send the row"
            )
        rendered = Rendered(text, "", None, None, (), row_of({}, "the text"))
        return Example(ids, (), prompt, rendered, self._candidates(rendered))

    def round_trip(self, text: str) -> str:
        """Return what would be read if the model answered with the tokens of a text."""
        return self.decode(self._tokens.of_continuation(text))

    def _set_labels(self, labels: Sequence[str]) -> None:
        self.label_ids = label_ids(self._tokens, self.task, self.template.input, labels)
        self.labels = tuple(labels)

    def _prompt(self, name: str | None, where: str) -> int:
        if name is None and len(self.prompts) <= 1:
            return 0
        if name is None:
            raise SoftPromptError(
                f"{where}: no prompt is named",
                why=f"there are {len(self.prompts)}: {', '.join(self.prompts)}",
                fix="name one, or give the column that names it: data.prompt_field=COLUMN",
            )
        known = meant(name, self.prompts)
        if known is None:
            error = unknown("prompt", name, self.prompts, fix="use a prompt that was trained")
            raise SoftPromptError(f"{where}: {error.what}", error.why, error.fix)
        return self.prompts.index(known)

    def _candidates(self, rendered: Rendered) -> tuple[Ids, ...] | None:
        if self.kind == "choice":
            texts = [self._tokens.after(rendered.input, choice) for choice in rendered.choices or ()]
            return distinct_ids(self._tokens, texts, f"{rendered.row.where}: the choices")
        if self.task.has_labels and self.label_ids is None:
            raise SoftPromptError(
                "the labels are not known yet",
                why="task.labels names none, and no training rows were encoded",
                fix="give labels, for example distinct_labels(rows, template)",
            )
        return self.label_ids if self.kind == "classification" else None

    def _label(self, rendered: Rendered, text: str) -> str:
        names = self.labels or ()
        if (name := meant(text, names)) is not None:
            return name
        is_tag = self.kind == "token-classification"
        raise not_a_label(rendered.row.where, text, names, is_tag=is_tag, named=self.task.names_labels)
