"""Rendered rows become token ids: input, target, candidates and the number of the prompt.

Input and target are encoded apart, because vectors may stand between them. This file knows a
tokenizer (any of `transformers`) and nothing of torch, models, padding or methods.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from softprompt.data.answer_positions import check_label_words, mask_lead, mask_places, word_places
from softprompt.data.capacity import Need, Room
from softprompt.data.chat import Chat
from softprompt.data.labels import distinct_labels, not_a_label
from softprompt.data.round_trip import end_texts, without_end
from softprompt.data.row import row_of
from softprompt.data.row_errors import each
from softprompt.data.spelling import distinct, meant
from softprompt.data.template import Rendered, Template
from softprompt.data.tokens import Ids, NoRoomInTemplate, Tokens, beyond_vocabulary
from softprompt.errors import SoftPromptError, unknown

KINDS = {  # of task, by where a model's answers are read
    "next": ("generation", "classification", "choice"),
    "mask": ("classification",),
    "head": ("classification", "token-classification", "regression"),
}


@dataclass(frozen=True, slots=True)
class Example:
    """One row as token ids; `target_ids` is empty where it was encoded without a target."""

    input_ids: Ids  # at least one token
    target_ids: Ids
    prompt: int  # index into the encoder's prompt names
    rendered: Rendered
    candidates: tuple[Ids, ...] | None  # labels or choices; `target_ids` is one of them
    truncated: int = 0  # tokens cut off, of the input (at its start) and of the target (at its end)
    places: Ids = ()  # where an encoder's answers are read, one a target; see `data.answer_positions`
    value: float | None = None  # the number that a regression row names


class Encoder:
    """Encodes rows of one task for one tokenizer.

    `prompts` are the prompts' names, a row's prompt being its index. `room` is what the model's positions
    hold (None: anything). Where a classification
    task names no labels, the first `encode_rows` (the training rows) decides them; see `labels`. `apart`:
    input and target are texts of their own, as an encoder and a decoder read them.
    `answers` says where the model's answers are read: after the input, at masks in it (label words, by
    `verbalizer` where they are not the labels themselves), or off a head. `closed` keeps the end token
    that the tokenizer appends, as encoders have learned it. `chat_options` go to the chat template, and
    `chat_date` is what one that writes the date is told; see `data.chat`. `ends`: tokens beside the
    tokenizer's own end token that end an answer. `vocabulary`: ids below it have an embedding in the model
    (None: all). `named`: the recipe names the labels, so that they are not those of the training rows.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: Template,
        *,
        chat: bool = False,
        system: str | None = None,
        chat_options: Mapping[str, Any] | None = None,
        chat_date: str | None = None,
        labels: Sequence[str] | None = None,
        kind: str = "generation",
        prompts: Sequence[str] = ("default",),
        max_input_tokens: int | None = None,
        max_target_tokens: int | None = None,
        room: Room | None = None,
        answers: Literal["next", "mask", "head"] = "next",
        closed: bool = False,
        verbalizer: Mapping[str, str] | None = None,
        apart: bool = False,
        ends: Collection[int] = (),
        vocabulary: int | None = None,
        named: bool = False,
    ) -> None:
        self.vocabulary = vocabulary
        self._end_texts = end_texts(tokenizer, (*ends, tokenizer.eos_token_id))
        self.ends = {*ends, tokenizer.eos_token_id}
        self.tokenizer, self.template, self.kind, self.named = tokenizer, template, kind, named
        self.answers, self.verbalizer = answers, dict(verbalizer or {})
        self.chat, self.system, self.prompts = chat, system, tuple(prompts)
        self.max_input_tokens, self.max_target_tokens = max_input_tokens, max_target_tokens
        self.room = room or Room()
        self._tokens = Tokens(tokenizer, chat, system, closed, apart, chat_options or {}, chat_date)
        self.turns: tuple[tuple[str, str], ...] = ()  # (input, target) shown ahead of each input (few-shot)
        self.labels: tuple[str, ...] | None = None
        self.label_ids: tuple[Ids, ...] | None = None
        self._check(labels)
        if labels is not None:
            self._set_labels(labels)

    def encode(
        self, row: Mapping[str, Any] | str, with_target: bool = True, *, prompt: str | None = None
    ) -> Example:
        """One row as an Example; `prompt` overrides the name that the row carries.

        A bare string (without a target) stands for the only field of the input template.
        Raises SoftPromptError that names the row: what `Template.render` raises, an unknown prompt or
        label, a row that does not fit the context.
        """
        rendered = self.render(row, with_target)
        where = rendered.row.where
        index = self._prompt(prompt if prompt is not None else rendered.prompt, where)
        candidates = self._candidates(rendered)
        target, cut = self._target(rendered, candidates) if with_target else ((), 0)
        longest = max([len(target), *(len(ids) for ids in candidates or ())])
        if self.answers != "next":  # then they take no room in the row
            longest = 0
        input_ids, lost = self._input(rendered.input, longest, where)
        read = (target, *(candidates or ())) if self.answers != "head" else ()
        written = " ".join((rendered.input, rendered.target, *(rendered.choices or ()), self.system or ""))
        self._check_known((*input_ids, *(token for ids in read for token in ids)), where, written)
        places = self._places(rendered, input_ids, lost)
        value = _number(rendered) if self.kind == "regression" and with_target else None
        return Example(input_ids, target, index, rendered, candidates, cut + lost, places, value)

    def render(self, row: Mapping[str, Any] | str, with_target: bool = True) -> Rendered:
        """The row's texts; a label is the one of `labels` that the row's spelling means.

        End tokens that are written at the end of targets, choices and references are taken off.
        """
        rendered = self._without_ends(self.template.render(row, with_target=with_target))
        if not self._labelled or not self.labels or not with_target:
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
        if self.answers != "next" or rendered.target in (self.labels or ()):
            return rendered
        choices = None
        if rendered.choices is not None:
            choices = tuple(without_end(choice, self._end_texts) for choice in rendered.choices)
        target = without_end(rendered.target, self._end_texts)
        if target == rendered.target and choices == rendered.choices:
            return rendered
        if rendered.target and not target:
            raise SoftPromptError(
                f"{rendered.row.where}: the target is empty",
                why=f"it holds the end token alone: {rendered.target!r}",
                fix="give the row a target, or take the row out",
            )
        references = tuple(without_end(text, self._end_texts) for text in rendered.references)
        return replace(rendered, target=target, choices=choices, references=references, end_taken_off=True)

    def encode_rows(
        self, rows: Iterable[Mapping[str, Any]], with_target: bool = True, *, prompt: str | None = None
    ) -> list[Example]:
        """All rows; one error names the first few of those that cannot be used, and counts them all."""
        return self.encode_parts([list(rows)], with_target, prompt=prompt)[0]

    def encode_parts(
        self,
        parts: Sequence[Sequence[Mapping[str, Any]]],
        with_target: bool = True,
        *,
        prompt: str | None = None,
    ) -> list[list[Example]]:
        """`encode_rows` of several lists, with one error for them all; the first one decides the labels."""
        rows = [row for part in parts for row in part]
        if self._labelled and self.labels is None and rows:
            found = distinct_labels(parts[0], self.template)
            if self.answers == "next":
                found = distinct(without_end(label, self._end_texts) for label in found)
            self._set_labels(found)
        examples = iter(each(rows, lambda row: self.encode(row, with_target, prompt=prompt)))
        return [[next(examples) for _ in part] for part in parts]

    def shorten(self, text: str) -> str:
        """The text without the first tokens that `max_input_tokens` cuts off."""
        ids = self._tokens.ids(text)
        limit = self.max_input_tokens
        return text if limit is None or len(ids) <= limit else self._tokens.last(text, ids, limit)

    @property
    def conversation(self) -> Chat:
        """How turns of a conversation become ids, in chat mode."""
        return self._tokens.conversation

    def decode(self, ids: Iterable[int]) -> str:
        """The text of generated ids up to an end token, without special tokens and outer whitespace."""
        kept: list[int] = []
        for token in ids:
            if int(token) in self.ends:
                break
            kept.append(int(token))
        # No clean-up: it would take spaces away that the target texts have.
        return self._tokens.decode(kept, skip_special_tokens=True).strip()

    def settled(self, new_tokens: int | None = None) -> Encoder:
        """The same of a tuned prompt, which writes that many tokens (None: as many as its recipe says)."""
        made = copy.copy(self)
        new = self.room.new_tokens if new_tokens is None else min(new_tokens, self.room.new_tokens)
        made.room = replace(self.room, is_settled=True, new_tokens=new)
        return made

    def within(self, room: Room) -> Encoder:
        """The same for inputs that have other positions."""
        made = copy.copy(self)
        made.room = room
        return made

    def reading(self, tokenizer: Any) -> Encoder:
        """The same with another tokenizer of the same vocabulary."""
        made = copy.copy(self)
        made.tokenizer, made._tokens = tokenizer, replace(self._tokens, tokenizer=tokenizer)
        return made

    def of_input(self, ids: Ids, text: str, prompt: int) -> Example:
        """An input that was encoded otherwise, of a text, with the labels as its candidates.

        Raises SoftPromptError for a task whose candidates come from a row.
        """
        if self.kind != "classification":
            raise SoftPromptError(
                "the choices are not said", why="they are a field of each row", fix="send the row"
            )
        rendered = Rendered(text, "", None, None, (), row_of({}, "the text"))
        return Example(ids, (), prompt, rendered, self._candidates(rendered))

    def round_trip(self, text: str) -> str:
        """What would be read, were the model to answer with the tokens of a text."""
        return self.decode(self._tokens.of_continuation(text))

    # --- checks and labels ---

    @property
    def _labelled(self) -> bool:
        return self.kind in ("classification", "token-classification")

    def _check(self, labels: Sequence[str] | None) -> None:
        known = dict.fromkeys(kind for kinds in KINDS.values() for kind in kinds)
        if self.kind not in known:
            raise unknown("task kind", self.kind, known)
        if self.kind not in KINDS[self.answers]:
            raise SoftPromptError(
                f"the model cannot do a {self.kind} task",
                why={
                    "next": "it writes text, and has no head",
                    "mask": "an encoder writes no text: it fills in masked words",
                    "head": "it was loaded with a head of labels",
                }[self.answers],
                fix=f"task.kind={KINDS[self.answers][0]}, or another model",
            )
        if labels is not None and not self._labelled:
            raise SoftPromptError(f"labels were given for a {self.kind} task", fix="task.kind=classification")
        if self.kind == "choice" and self.template.choices_field is None:
            raise SoftPromptError("a choice task needs a field of choices", fix="task.choices=FIELD")
        if self.chat and not getattr(self.tokenizer, "chat_template", None):
            raise SoftPromptError(
                "template.chat is set, but the model's tokenizer has no chat template",
                why="it is a plain language model, or its chat template was not saved with it",
                fix="template.chat=false, and write the turns into template.input",
            )
        if self.chat:
            self.conversation.check()
        if self.system is not None and not self.chat:
            raise SoftPromptError(
                "a system text has an effect only in chat mode",
                fix="template.chat=true, or put the text into template.input",
            )
        if self.kind == "generation":  # refuse before any row is read
            self._check_known((self._tokens.end(),), "the end token")

    def _set_labels(self, labels: Sequence[str]) -> None:
        # Decided once, by the template's own last character rather than each row's, so that a label
        # has the same ids in every row and its scores can be compared between rows.
        if self.answers == "head":
            self.label_ids = tuple((number,) for number in range(len(labels)))
        else:
            at_masks = self.answers == "mask"
            lead = (
                mask_lead(self.template.input, self.tokenizer.mask_token)
                if at_masks
                else self._tokens.lead(self.template.input)
            )
            texts = [self._tokens.with_lead(lead, word) for word in self._label_words(labels)]
            if at_masks:
                check_label_words(texts, [self._tokens.of_continuation(text) for text in texts])
            self.label_ids = self._candidate_ids(texts, "task.labels")
            for label, ids in zip(labels, self.label_ids, strict=True):
                self._check_known(ids, f"label {label!r}", label)
        self.labels = tuple(labels)

    def _label_words(self, labels: Sequence[str]) -> list[str]:
        if not self.verbalizer:
            return list(labels)
        if set(self.verbalizer) != set(labels):
            raise SoftPromptError(
                "task.verbalizer does not name the labels",
                why=f"it names {', '.join(self.verbalizer)}; the labels are {', '.join(labels)}",
                fix="give each label its word: task.verbalizer={label: word, …}",
            )
        return [self.verbalizer[label] for label in labels]

    def _check_known(self, ids: Ids, where: str, text: str | None = None) -> None:
        if self.vocabulary is not None and ids and max(ids) >= self.vocabulary:
            raise beyond_vocabulary(self.tokenizer, max(ids), self.vocabulary, where, text=text)

    # --- parts of an example ---

    def _prompt(self, name: str | None, where: str) -> int:
        if name is None and len(self.prompts) <= 1:
            return 0
        if name is None:
            raise SoftPromptError(
                f"{where}: the prompt is not said",
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
            texts = [self._after(rendered.input, choice) for choice in rendered.choices or ()]
            return self._candidate_ids(texts, f"{rendered.row.where}: the choices")
        if self._labelled and self.label_ids is None:
            raise SoftPromptError(
                "the labels are not known yet",
                why="task.labels names none, and no training rows were encoded",
                fix="give labels, for example distinct_labels(rows, template)",
            )
        return self.label_ids if self.kind == "classification" else None

    def _after(self, before: str, text: str) -> str:
        return self._tokens.with_lead(self._tokens.lead(before), text)

    def _candidate_ids(self, texts: Sequence[str], name: str) -> tuple[Ids, ...]:
        """Ids of each text; the end token closes all of them where one begins another.

        Without it the shorter would be scored on a part of the longer ("no" and "no idea").
        """
        ids: list[Ids] = [self._tokens.of_continuation(text) for text in texts]
        if any(a != b and b[: len(a)] == a for a in ids for b in ids):
            ids = [(*candidate, self._tokens.end()) for candidate in ids]
        for index, candidate in enumerate(ids):
            if not candidate or candidate in ids[:index]:
                other = texts[ids.index(candidate)] if candidate else ""
                why = f"{other!r} has the same tokens" if candidate else "the tokenizer gives no token for it"
                raise SoftPromptError(
                    f"{name}: {texts[index]!r} cannot be told from the others", why, "choose other words"
                )
        return tuple(ids)

    def _target(self, rendered: Rendered, candidates: tuple[Ids, ...] | None) -> tuple[Ids, int]:
        """(ids, tokens cut). A generation target ends with the end token, unless it was cut.

        Of a head: the numbers of label or tags. A number to predict stands in `Example.value`.
        """
        if self.kind == "regression":
            return (0,), 0
        if self.kind == "token-classification":
            return tuple((self.labels or ()).index(tag) for tag in rendered.tags), 0
        if candidates is not None:
            names = self.labels if self.kind == "classification" else rendered.choices
            return candidates[(names or ()).index(rendered.target)], 0
        text = self._after(rendered.input, rendered.target)
        own = self._tokens.of_continuation(text)
        if end := next((token for token in own if token in self.ends), None):
            raise SoftPromptError(
                f"{rendered.row.where}: the target holds the end token "
                f"{self.tokenizer.convert_ids_to_tokens(end)!r} within its text",
                why="every answer ends there, so that what follows could never be read",
                fix="take it out of the row",
            )
        if not own:
            raise SoftPromptError(
                f"{rendered.row.where}: the tokenizer gives no token for the target {rendered.target!r}",
                why="it takes all of its characters away",
                fix="write it in characters that the model knows, or use another model",
            )
        ids = (*own, self._tokens.end())
        kept = ids[: self.max_target_tokens] if self.max_target_tokens else ids
        return kept, len(ids) - len(kept)

    def _places(self, rendered: Rendered, input_ids: Ids, lost: int) -> Ids:
        where = rendered.row.where
        if self.answers == "mask":
            return mask_places(input_ids, self.tokenizer, self.label_ids or ((),), where)
        if self.kind != "token-classification":
            return ()
        if lost:
            raise SoftPromptError(
                f"{where}: {lost} tokens of the row do not fit",
                why="a tag cannot be read off a word that was cut off",
                fix="split the row, or raise data.max_input_tokens",
            )
        return word_places(self.tokenizer, rendered.words, where)

    def _label(self, rendered: Rendered, text: str) -> str:
        names = self.labels or ()
        if (name := meant(text, names)) is not None:
            return name
        is_tag = self.kind == "token-classification"
        raise not_a_label(rendered.row.where, text, names, is_tag=is_tag, named=self.named)

    def _input(self, text: str, target_tokens: int, where: str) -> tuple[Ids, int]:
        """(ids, tokens cut) of an input that leaves room for `target_tokens`."""
        most = self.max_input_tokens
        if self.turns:  # then it is the limit of each text alone, and what is too long together is refused
            text, most = self.shorten(text), None
        if self.turns and not self.chat:
            shown = [before + self._after(before, answer) for before, answer in self.turns]
            text = "\n\n".join([*shown, text])
        header, body = (
            self._tokens.of_input(text)
            if not self.chat
            else ((), self._tokens.of_chat(text, where, self.turns))
        )
        total = len(header) + len(body)
        need = Need(total, target_tokens, shown=len(self.turns))
        if self.chat and total > (self.room.for_input(need) or total):
            least = len(self._tokens.of_chat("", where, self.turns)) + 1
            need = replace(need, least_input=least)
        if most is None:
            self.room.check(need, where)
        else:
            self.room.check_answer(need, where)
        room = self.room.for_input(need)
        if room is not None and room < 1:
            raise self.room.no_room(need, where)
        limit = min((n for n in (most, room) if n is not None), default=total)
        if total > limit:
            if self.chat:
                header, body = (), self._chat_cut(text, len(body), limit, need, where)
            else:
                header = header[:limit]  # the model expects its begin token whatever is cut
                body = body[len(body) - (limit - len(header)) :]
        ids = (*header, *body) or self._tokens.stand_in(where)
        return ids, max(0, total - len(ids))

    def _chat_cut(self, text: str, total: int, limit: int, need: Need, where: str) -> Ids:
        try:
            return self._tokens.of_chat_cut(text, total, limit, where, self.turns)
        except NoRoomInTemplate as error:
            room = self.room.for_input(need)
            if room is not None and room <= error.least:
                raise self.room.no_room(replace(need, least_input=error.least + 1), where) from None
            raise SoftPromptError(
                f"{where}: {limit} tokens leave no room for the input",
                why=f"the chat template and the system text take {error.least} tokens alone",
                fix=f"data.max_input_tokens={min(error.least + 64, room or error.least + 64)}, "
                "or a shorter system text",
            ) from None


def _number(rendered: Rendered) -> float:
    """The target of a regression row."""
    try:
        value = float(rendered.target)
    except ValueError:
        value = math.nan
    if math.isfinite(value):
        return value
    raise SoftPromptError(
        f"{rendered.row.where}: target {rendered.target!r} is not a number",
        why="task.kind=regression predicts one number a row",
        fix="mend the row, or take it out (template.target may compute: {{ score | float / 5 }})",
    )
