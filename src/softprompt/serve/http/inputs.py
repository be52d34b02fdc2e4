"""Requests become token ids: a text as it is, a row or a message through a template, messages as a chat.

An artifact says which of these its prompt was trained on, so one user message gives the model exactly what
`softprompt generate` gives it. Everything that tokenizes blocks (see `long_texts`), so it runs in a thread.
Names and bytes of single tokens do not block, so the event loop may ask for them.
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
    """The input that is read for one answer, as ids and as text."""

    ids: Ids
    text: str
    reading: Reading
    sent_as: str  # "prompt", "row", "text", "message" or "messages"
    continues: bool = False  # the answer continues the same text, as a completion does
    from_ids: bool = False  # ids were sent, and no text
    example: Example | None = None  # with its candidates, where the prompt chooses among labels
    echo: str = ""  # the text that comes back, where the request asks for it
    echo_lengths: tuple[int, ...] = ()  # how many of its characters each token completes


class Inputs:
    """Encodes what clients send; `context` is the model's, in tokens (None: no limit).

    `vectors` reads texts under no prompt where the model gives vectors.
    """

    def __init__(
        self,
        tokenizer: Any,
        context: int | None,
        limits: Limits,
        control_tokens: Policy = "allow",
        vectors: Encoder | None = None,
    ) -> None:
        self.tokenizer, self.context, self.limits = tokenizer, context, limits
        self._plain = Encoder(tokenizer, Template("{{ input }}")) if vectors is None else vectors
        self.pieces, self.controls = Pieces(tokenizer), Controls(tokenizer, control_tokens)
        self.known = len(tokenizer)  # ids below it are in the vocabulary
        self.long_texts = LongTexts(tokenizer, context)
        self._plain.encode(
            {"input": "x"}, with_target=False
        )  # transformers resets settings of tokenizer.json at the first call

    def text(self, text: str | Sequence[int], loaded: ServedPrompt | None = None) -> Input:
        """Encode a text, or its ids, without a template; the tokenizer adds its own tokens ahead of it."""
        if isinstance(text, str):
            guard = self.controls.guard([text], lambda hide: hide(text))
            encoder = self._plain if guard is None else guard.encoder(self._plain)
            hidden = text if guard is None else guard.hide(text)
            self.long_texts.check(text, "prompt")
            with self.long_texts.turn(len(text)):
                ids = encoder.encode({"input": hidden}, with_target=False).input_ids
            return self._checked(Input(ids, text, Reading(rendering="text"), "prompt", True), loaded)
        if (unknown := next((id for id in text if id >= self.known), None)) is not None:
            message = f"Token id {unknown} is not in the vocabulary (0 to {self.known - 1})."
            raise ApiError(400, message, param="prompt", code="invalid_token")
        check_fits("prompt", len(text), 0, 0, self.context)  # before anything is decoded
        with self.long_texts.turn(len(text)):
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
        sent_as: str = "row",
    ) -> Input:
        """Render a row through the prompt's template, for an answer of `wanted` tokens (None: what fits).

        `param` names the request's field that holds the row, `sent_as` its kind in messages.
        """
        if loaded is None:
            raise ApiError(400, "The plain model has no template: send `prompt`.", param=param)
        encoder, room = loaded.encoder, Room()  # `room` refuses what does not fit
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
                self.long_texts.check(encoder.render(row, with_target=False).input, sent_as)
            with self.long_texts.turn(written):
                example = reader.encode(hidden, with_target=False, prompt=encoder.prompts[loaded.index])
        except TooLong as error:  # of a chat template and a system text
            check_fits(sent_as, error.need.input, room.soft, max(1, room.answer(error.need)), self.context)
            raise
        except SoftPromptError as error:
            api_error = from_product(error)
            api_error.param = param
            raise api_error from None
        example = example if guard is None else guard.shown(example)
        reading = Reading(rendering="template", cut_tokens=example.truncated)
        return self._checked(
            Input(example.input_ids, example.rendered.input, reading, sent_as, example=example)
        )

    def for_vector(
        self, loaded: ServedPrompt | None, text: str, param: str, *, document: bool = False
    ) -> Example:
        """Encode a text whose vector is wanted: a query, or a `document`, by the prompt's templates.

        Under no prompt it is read as it is. `param` names the request's field that holds the text.
        """
        encoder = self._plain if loaded is None else loaded.encoder
        name = None if loaded is None else encoder.prompts[loaded.index]
        guard = self.controls.guard([text], lambda hide: hide(text))
        reader, hidden = encoder, text
        if guard is not None:
            reader, hidden = guard.encoder(encoder), guard.hide(text)
        if encoder.limits.max_input_tokens is None:
            self.long_texts.check(text, "input")
        try:
            with self.long_texts.turn(len(text)):
                if document:
                    return reader.encode_document(hidden, prompt=name)
                return reader.encode(hidden, with_target=False, prompt=name)
        except SoftPromptError as error:
            api_error = from_product(error)
            api_error.param = param
            raise api_error from None

    def chat(
        self, loaded: ServedPrompt | None, messages: Sequence[Message], rendering: str, wanted: int | None
    ) -> Input:
        """Encode messages through the prompt's template if one field takes the user's text, or as a chat."""
        users = [message for message in messages if message.role == "user"]
        template = None if loaded is None else loaded.encoder.template
        fields = () if template is None else template.input_fields
        if rendering == "template" and len(fields) != 1:
            named = "the plain model has no template" if template is None else f"its fields: {list(fields)}"
            message = f"A message fills a template of exactly one field; {named}."
            raise ApiError(400, message, param="rendering", code="no_template")
        if loaded is None or rendering == "chat" or len(fields) != 1:
            encoder = None if loaded is None or not loaded.encoder.template.chat else loaded.encoder
            texts = [message.text for message in messages]
            return self._as_chat(
                texts, lambda hide: _turns(messages, hide), encoder, loaded, Reading(rendering="chat")
            )
        if not users:
            raise ApiError(400, "There is no user message.", param="messages")
        if not loaded.encoder.template.chat or len(messages) == 1:
            last = self.row(loaded, {fields[0]: users[-1].text}, wanted, "messages", "message")
            reading = last.reading.model_copy(update={"unread_messages": len(messages) - 1})
            return replace(last, reading=reading)
        return self._as_conversation(loaded, fields[0], messages)

    def _as_conversation(self, loaded: ServedPrompt, field: str, messages: Sequence[Message]) -> Input:
        """Render each user message through a chat prompt's template, and keep the answers between them."""
        encoder = loaded.encoder

        def turns(hide: Hide) -> list[tuple[str, str]]:
            written = [
                (role, encoder.template.render_input({field: text}) if role == "user" else text)
                for role, text in _turns(messages, hide)
            ]
            if encoder.template.system is not None and not any(role == "system" for role, _ in written):
                written.insert(0, ("system", encoder.template.system))
            return written

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
        """Encode a conversation: `turns(hide)` gives (role, text), with `hide` applied to `texts`."""
        if not getattr(self.tokenizer, "chat_template", None):
            message = "The model has no chat template: use /v1/completions, or a prompt with a template."
            raise ApiError(400, message, param="messages", code="no_chat_template")
        encoder = self._plain if encoder is None else encoder
        plain = turns(lambda text: text)
        last = plain[-1][1]
        self.long_texts.check(last, "messages")  # the last one alone, since a template may omit others
        try:
            with self.long_texts.turn(sum(len(text) for _, text in plain)):
                chat = encoder.conversation
                guard = self.controls.guard(texts, lambda hide: chat.text(turns(hide)))
                ids = (
                    chat.ids(plain)
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
        default: int,
        scale: float,
        param: str = "max_tokens",
    ) -> int:
        """Return how many tokens the answer may have: `wanted` (from the field `param`), where they fit.

        By default as many as the prompt was trained for (`default` for the plain model), or what is left.
        Raises ContextExceeded.
        """
        most, soft = self.limits.output_tokens, 0 if loaded is None or not scale else loaded.vectors[1]
        if wanted is not None and wanted > most:
            message = f"An answer has at most {most} tokens; {wanted} were requested."
            raise ApiError(400, message, param=param, code="max_tokens_too_large")
        check_fits(given.sent_as, len(given.ids), soft, 1 if wanted is None else wanted, self.context)
        if wanted is not None:
            return wanted
        left = most if self.context is None else self.context - soft - len(given.ids)
        usual = default if loaded is None else loaded.recipe.task.max_new_tokens
        return min(usual, most, left)

    def check_labels(self, given: Input, loaded: ServedPrompt, scale: float) -> None:
        """Raise ContextExceeded where the input and its longest label do not fit the context."""
        candidates = () if given.example is None else given.example.candidates or ()
        soft, longest = loaded.vectors[1] if scale else 0, max(map(len, candidates), default=0)
        if loaded.encoder.model.answers == "head":
            longest = 0  # its answer takes no position
        check_fits(given.sent_as, len(given.ids), soft, longest, self.context, named="longest label")

    def name(self, token: Token, first: bool = False) -> str:
        if token.id < 0:  # the engine did not give its id
            return token.text
        return self.pieces.name(token.id, first)

    def names(self, token: Token, first: bool = False) -> dict[str, float]:
        """Return the likeliest tokens in its place, by name, with their log-probabilities."""
        named: dict[str, float] = {}
        for id, _, value in token.top:
            name = self.pieces.name(id, first)
            named.setdefault(self.pieces.name(id) if name in named else name, value)
        return named

    def bytes(self, id: int, first: bool = False) -> list[int] | None:
        """Return the bytes that a token adds to the text; None for a control token and for an unknown one."""
        data = self.pieces.bytes(id, first) if id >= 0 else None
        return None if data is None else list(data)

    def _checked(self, given: Input, loaded: ServedPrompt | None = None) -> Input:
        """Check the server's own limit, and add the candidates of a prompt that chooses among labels."""
        most = self.limits.input_tokens
        if most is not None and len(given.ids) > most:
            message = f"An input has at most {most} tokens; this one has {len(given.ids)}."
            raise ApiError(400, message, code="context_length_exceeded")
        if loaded is None or loaded.encoder.kind != "classification":
            return given
        example = loaded.encoder.of_input(given.ids, given.text, loaded.index)
        return replace(given, example=example)


def _turns(messages: Sequence[Message], hide: Hide) -> list[tuple[str, str]]:
    return [("system" if m.role == "developer" else m.role, hide(m.text)) for m in messages]


def _hidden(row: Mapping[str, Any] | str, template: Template, hide: Hide) -> Any:
    """Apply `hide` to a row, except to the names of fields that are looked up."""
    if isinstance(row, str):
        return hide(row)
    named = (template.prompt_field, template.choices_field, template.words_field, template.tags_field)
    fields = {*template.fields(), *named}
    return {name if name in fields else hide(name): hide(value) for name, value in row.items()}


def _characters(row: Mapping[str, Any] | str) -> int:
    return len(row) if isinstance(row, str) else sum(len(str(value)) for value in row.values())
