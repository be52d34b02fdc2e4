"""Requests become token ids: a text as it is, a row or a message through a template, messages as a chat.

Which of these a prompt was trained on is in its artifact, so one user message gives the model exactly what
`softprompt generate` gives it. Everything that tokenizes blocks (see `long_texts` for whose turn it is), so
it runs in a thread. Names and bytes of single tokens wait for nobody: an event loop may ask for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...data.capacity import Room, TooLong
from ...data.encode import Encoder
from ...data.example import Example
from ...data.template import Template
from ...errors import SoftPromptError
from ..context import check_fits
from ..control_tokens import Controls, Guard, Hide, Policy
from ..detokenizer import Detokenizer
from ..request import InvalidRequest, Token
from ..token_pieces import Pieces
from .errors import ApiError, from_product
from .limits import Limits
from .long_texts import LONG, LongTexts
from .responses import Reading

if TYPE_CHECKING:
    from .protocols import ServedPrompt
    from .requests import Message

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Input:
    """What one row reads, as ids and as text."""

    ids: Ids
    text: str
    reading: Reading
    what: str  # it was sent as
    goes_on: bool = False  # the answer goes on in the same text, as that of a completion does
    from_ids: bool = False  # ids were sent, and no text
    example: Example | None = None  # with its candidates, under a prompt that chooses among labels
    echo: str = ""  # the text that comes back, where it was asked for
    echo_lengths: tuple[int, ...] = ()  # how many of its characters each token completes


class Inputs:
    """The tokenizer's side of a server; `context` is the model's, in tokens (None: no bound)."""

    def __init__(
        self, tokenizer: Any, context: int | None, limits: Limits, control_tokens: Policy = "allow"
    ) -> None:
        self.tokenizer, self.context, self.limits = tokenizer, context, limits
        self._plain = Encoder(tokenizer, Template("{{ input }}"))
        self.pieces, self.controls = Pieces(tokenizer), Controls(tokenizer, control_tokens)
        self.known = len(tokenizer)  # ids below are of the vocabulary
        self._long = LongTexts(tokenizer, context)
        self._plain.encode({"input": "x"}, with_target=False)  # settings of its own file are put aside once

    def text(self, text: str | Sequence[int], loaded: ServedPrompt | None = None) -> Input:
        """A text, or its ids, as it is: what ahead of it the tokenizer puts is put, no template."""
        if isinstance(text, str):
            guard = self.controls.guard([text], lambda hide: hide(text))
            encoder = self._plain if guard is None else guard.encoder(self._plain)
            hidden = text if guard is None else guard.hide(text)
            self._long.check(text, "prompt")
            with self._long.turn(len(text)):
                ids = encoder.encode({"input": hidden}, with_target=False).input_ids
            return self._checked(Input(ids, text, Reading(rendering="text"), "prompt", True), loaded)
        if odd := next((id for id in text if id >= self.known), None):
            message = f"Token id {odd} is not of the vocabulary (0 to {self.known - 1})."
            raise ApiError(400, message, param="prompt", code="invalid_token")
        check_fits("prompt", len(text), 0, 0, self.context)  # ahead of the work
        with self._long.turn(len(text)):
            shown = self.pieces.decode(list(text))
        return self._checked(
            Input(tuple(text), shown, Reading(rendering="text"), "prompt", True, True), loaded
        )

    def row(
        self,
        loaded: ServedPrompt | None,
        row: Mapping[str, Any] | str,
        wanted: int | None,
        param: str = "row",
        what: str = "row",
    ) -> Input:
        """The prompt's own template over a row; `wanted` tokens are to be answered (None: as many as fit).

        `param` names the field that the row came in, `what` what it is.
        """
        if loaded is None:
            raise ApiError(400, "The plain model has no template: send `prompt`.", param=param)
        encoder, room = loaded.encoder, Room()  # what does not fit is told by `room`
        if encoder.limits.max_input_tokens is not None:  # what is cut leaves room for the answer
            new = encoder.limits.room.new_tokens if wanted is None else wanted
            soft = loaded.vectors[1]
            room = replace(encoder.limits.room, context=self.context, soft=soft, new_tokens=new)
        try:
            guard = self._guard_of_row(encoder, row)
            reader, hidden = encoder.within(room), row
            if guard is not None:
                reader, hidden = guard.encoder(reader), _hidden(row, encoder.template, guard.hide)
            written = _characters(row)
            if written > LONG and encoder.limits.max_input_tokens is None:
                self._long.check(encoder.render(row, with_target=False).input, what)
            with self._long.turn(written):
                example = reader.encode(hidden, with_target=False, prompt=encoder.prompts[loaded.index])
        except TooLong as error:  # of a chat template and a system text
            check_fits(what, error.need.input, room.soft, max(1, room.answer(error.need)), self.context)
            raise
        except SoftPromptError as error:
            wrong = from_product(error)
            wrong.param = param
            raise wrong from None
        example = example if guard is None else guard.shown(example)
        reading = Reading(rendering="template", cut_tokens=example.truncated)
        return self._checked(Input(example.input_ids, example.rendered.input, reading, what, example=example))

    def chat(
        self, loaded: ServedPrompt | None, messages: Sequence[Message], rendering: str, wanted: int | None
    ) -> Input:
        """Messages through the artifact's template where one field takes the user's text, else as a chat."""
        users = [message for message in messages if message.role == "user"]
        template = None if loaded is None else loaded.encoder.template
        fields = () if template is None else template.input_fields
        if rendering == "template" and len(fields) != 1:
            named = "the plain model has no template" if template is None else f"its fields: {list(fields)}"
            message = f"A message fills a template of exactly one field; {named}."
            raise ApiError(400, message, param="rendering", code="no_template")
        if loaded is None or rendering == "chat" or len(fields) != 1:
            own = None if loaded is None or not loaded.encoder.template.chat else loaded.encoder
            texts = [message.text for message in messages]
            return self._as_chat(
                texts, lambda hide: _said(messages, hide), own, loaded, Reading(rendering="chat")
            )
        if not users:
            raise ApiError(400, "There is no user message.", param="messages")
        if not loaded.encoder.template.chat or len(messages) == 1:
            last = self.row(loaded, {fields[0]: users[-1].text}, wanted, "messages", "message")
            reading = last.reading.model_copy(update={"unread_messages": len(messages) - 1})
            return replace(last, reading=reading)
        return self._as_conversation(loaded, fields[0], messages)

    def _as_conversation(self, loaded: ServedPrompt, field: str, messages: Sequence[Message]) -> Input:
        """A template that is a chat's own turn takes every user message, and the answers between them."""
        encoder = loaded.encoder

        def turns(hide: Hide) -> list[tuple[str, str]]:
            made = [
                (role, encoder.template.render_input({field: text}) if role == "user" else text)
                for role, text in _said(messages, hide)
            ]
            if encoder.template.system is not None and not any(role == "system" for role, _ in made):
                made.insert(0, ("system", encoder.template.system))
            return made

        texts = [message.text for message in messages]
        return self._as_chat(texts, turns, encoder, loaded, Reading(rendering="template"))

    def _as_chat(
        self,
        texts: Sequence[str],
        turns: Callable[[Hide], list[tuple[str, str]]],
        encoder: Encoder | None,
        loaded: ServedPrompt | None,
        reading: Reading,
    ) -> Input:
        """`turns(hide)`: what is said, by role, where `hide` was applied to the client's own `texts`."""
        if not getattr(self.tokenizer, "chat_template", None):
            message = "The model has no chat template: use /v1/completions, or a prompt with a template."
            raise ApiError(400, message, param="messages", code="no_chat_template")
        encoder = self._plain if encoder is None else encoder
        said = turns(lambda text: text)
        last = said[-1][1]
        self._long.check(last, "messages")  # the last one, for a template may leave out of the others
        try:
            with self._long.turn(sum(len(text) for _, text in said)):
                chat = encoder.conversation
                guard = self.controls.guard(texts, lambda hide: chat.text(turns(hide)))
                ids = (
                    chat.ids(said)
                    if guard is None
                    else guard.encoder(encoder).conversation.ids(turns(guard.hide))
                )
        except InvalidRequest:
            raise
        except SoftPromptError as error:
            message = f"The model's chat template refuses these messages: {error.what}"
            raise ApiError(400, message, param="messages", code="chat_template") from None
        return self._checked(Input(ids, last, reading, "messages"), loaded)

    def _guard_of_row(self, encoder: Encoder, row: Mapping[str, Any] | str) -> Guard | None:
        def write(hide: Hide) -> str:
            rendered = encoder.render(_hidden(row, encoder.template, hide), with_target=False)
            return "\n".join((rendered.input, *(rendered.choices or ())))

        return self.controls.guard([row], write)

    def room(
        self,
        given: Input,
        wanted: int | None,
        loaded: ServedPrompt | None,
        otherwise: int,
        scale: float,
        param: str = "max_tokens",
    ) -> int:
        """Tokens that the answer may have: `wanted` (by the field `param`), where they fit the context.

        Without it as many as the prompt was trained for (`otherwise` for the plain model), or what is left.
        Raises ContextExceeded.
        """
        most, soft = self.limits.output_tokens, 0 if loaded is None or not scale else loaded.vectors[1]
        if wanted is not None and wanted > most:
            message = f"At most {most} tokens are answered; {wanted} were asked for."
            raise ApiError(400, message, param=param, code="max_tokens_too_large")
        check_fits(given.what, len(given.ids), soft, 1 if wanted is None else wanted, self.context)
        if wanted is not None:
            return wanted
        left = most if self.context is None else self.context - soft - len(given.ids)
        usual = otherwise if loaded is None else loaded.recipe.task.max_new_tokens
        return min(usual, most, left)

    def check_labels(self, given: Input, loaded: ServedPrompt, scale: float) -> None:
        """Raises ContextExceeded where the input and its longest label do not fit the context."""
        candidates = () if given.example is None else given.example.candidates or ()
        soft, longest = loaded.vectors[1] if scale else 0, max(map(len, candidates), default=0)
        check_fits(given.what, len(given.ids), soft, longest, self.context, named="longest label")

    def name(self, token: Token, first: bool = False) -> str:
        """How a token is called among log-probabilities; see `Pieces.name`."""
        if token.id < 0:  # an engine that does not say which
            return token.text
        return self.pieces.name(token.id, first)

    def names(self, token: Token, first: bool = False) -> dict[str, float]:
        """The likeliest tokens in its place, by name, with their log-probabilities."""
        found: dict[str, float] = {}
        for id, _, value in token.top:
            name = self.pieces.name(id, first)
            found.setdefault(self.pieces.name(id) if name in found else name, value)
        return found

    def bytes(self, id: int, first: bool = False) -> list[int] | None:
        """What a token adds to the text; None of a control token, and of one that is not known."""
        data = self.pieces.bytes(id, first) if id >= 0 else None
        return None if data is None else list(data)

    def echoed(self, given: Input, answered: bool, scored: bool) -> Input:
        """The input with its text as it is echoed.

        What was sent as a text comes back as it was. `answered`: an answer follows, which completes a
        character that the ids end within. `scored`: the lengths of its tokens are wanted too.
        """
        if given.goes_on and not given.from_ids and not scored:  # nothing to tokenize again
            return replace(given, echo=given.text)
        with self._long.turn(len(given.text)):
            if not given.from_ids and (lengths := self._lengths(given)) is not None:
                return replace(given, echo=given.text, echo_lengths=tuple(lengths))
            read = Detokenizer(self.tokenizer, named=True)
            texts = [read.add(id) for id in given.ids]
            texts[-1] += "" if answered else read.rest()
        return replace(given, echo="".join(texts), echo_lengths=tuple(map(len, texts)))

    def _lengths(self, given: Input) -> list[int] | None:
        """By the places in the text that the tokenizer says; None where the ids are not those of the text."""
        if not given.text:
            return [0] * len(given.ids)
        if not getattr(self.tokenizer, "is_fast", False):
            return None
        made = self.tokenizer(
            given.text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
        )
        count = len(given.ids)
        if tuple(made["input_ids"][:count]) != given.ids:
            return None
        marks = zip(made["special_tokens_mask"], made["offset_mapping"], strict=True)
        places = [None if added else place for added, place in marks][:count]
        ends, end, begun = [0] * count, 0, len(given.text)
        for i, place in enumerate(places):
            end = ends[i] = end if place is None else max(end, place[1])
        for i in reversed(range(count)):  # a token completes no more than what the later ones leave to it
            ends[i], place = min(ends[i], begun), places[i]
            begun = begun if place is None else min(begun, place[0])
        ends[-1] = len(given.text)
        return [end - before for end, before in zip(ends, [0, *ends[:-1]], strict=True)]

    def _checked(self, given: Input, loaded: ServedPrompt | None = None) -> Input:
        """Within the server's own bound; under a prompt that chooses among labels, with its candidates."""
        most = self.limits.input_tokens
        if most is not None and len(given.ids) > most:
            message = f"An input has at most {most} tokens; this one has {len(given.ids)}."
            raise ApiError(400, message, code="context_length_exceeded")
        if loaded is None or loaded.encoder.kind != "classification":
            return given
        example = loaded.encoder.of_input(given.ids, given.text, loaded.index)
        return replace(given, example=example)


def _said(messages: Sequence[Message], hide: Hide) -> list[tuple[str, str]]:
    return [("system" if m.role == "developer" else m.role, hide(m.text)) for m in messages]


def _hidden(row: Mapping[str, Any] | str, template: Template, hide: Hide) -> Any:
    """A row, where `hide` is applied to all but the names of fields that are looked up."""
    if isinstance(row, str):
        return hide(row)
    named = (template.prompt_field, template.choices_field, template.words_field, template.tags_field)
    fields = {*template.fields(), *named}
    return {name if name in fields else hide(name): hide(value) for name, value in row.items()}


def _characters(row: Mapping[str, Any] | str) -> int:
    """How long a row is, in characters."""
    return len(row) if isinstance(row, str) else sum(len(str(value)) for value in row.values())
