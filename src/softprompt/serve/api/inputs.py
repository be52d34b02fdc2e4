"""Requests become token ids: a text as it is, a row or a message through a template, messages as a chat.

Which of these a prompt was trained on is in its artifact, so one user message gives the model exactly what
`softprompt generate` gives it. Everything here blocks (tokenizers), and tokenizers take one caller at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...data.encode import Encoder
from ...data.template import Template
from ...errors import SoftPromptError
from .errors import ApiError
from .limits import Limits
from .replies import Reading

if TYPE_CHECKING:
    from .schemas import Message
    from .service import Loaded

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Input:
    """What one row reads, as ids and as text."""

    ids: Ids
    text: str
    reading: Reading


class Inputs:
    """The tokenizer's side of a server; `context` is the model's, in tokens (None: no bound)."""

    def __init__(self, tokenizer: Any, context: int | None, limits: Limits) -> None:
        self.tokenizer, self.context, self.limits = tokenizer, context, limits
        self._plain = Encoder(tokenizer, Template("{{ input }}"))
        self.known = len(tokenizer)  # ids below are of the vocabulary
        self._lock = threading.Lock()

    def text(self, text: str | Sequence[int]) -> Input:
        """A text, or its ids, as it is: what ahead of it the tokenizer puts is put, no template."""
        if isinstance(text, str):
            with self._lock:
                ids = self._plain.encode({"input": text}, with_target=False).input_ids
            return self._checked(Input(ids, text, Reading(rendering="text")))
        if odd := next((id for id in text if id >= self.known), None):
            message = f"Token id {odd} is not of the vocabulary (0 to {self.known - 1})."
            raise ApiError(400, message, param="prompt", code="invalid_token")
        return self._checked(Input(tuple(text), self.piece(*text), Reading(rendering="text")))

    def row(self, loaded: Loaded | None, row: Mapping[str, Any], param: str = "row") -> Input:
        """The prompt's own template over a row."""
        if loaded is None:
            raise ApiError(400, "The plain model has no template: send `prompt`.", param=param)
        encoder = loaded.tuned.encoder
        with self._lock:
            example = encoder.encode(row, with_target=False, prompt=encoder.prompts[loaded.index])
        reading = Reading(rendering="template", cut_tokens=example.truncated)
        return self._checked(Input(example.input_ids, example.rendered.input, reading))

    def chat(self, loaded: Loaded | None, messages: Sequence[Message], rendering: str) -> Input:
        """Messages through the artifact's template where one field takes the user's text, else as a chat."""
        users = [message for message in messages if message.role == "user"]
        template = None if loaded is None else loaded.tuned.encoder.template
        fields = () if template is None else template.input_fields
        if rendering == "template" and len(fields) != 1:
            named = "the plain model has no template" if template is None else f"its fields: {list(fields)}"
            message = f"A message fills a template of exactly one field; {named}."
            raise ApiError(400, message, param="rendering", code="no_template")
        if loaded is None or rendering == "chat" or len(fields) != 1:
            own = None if loaded is None or not loaded.tuned.encoder.chat else loaded.tuned.encoder
            return self._as_chat([(message.role, message.text) for message in messages], own)
        if not users:
            raise ApiError(400, "There is no user message.", param="messages")
        if not loaded.tuned.encoder.chat or len(messages) == 1:
            last = self.row(loaded, {fields[0]: users[-1].text}, "messages")
            reading = last.reading.model_copy(update={"unread_messages": len(messages) - 1})
            return replace(last, reading=reading)
        return self._as_conversation(loaded, fields[0], messages)

    def _as_conversation(self, loaded: Loaded, field: str, messages: Sequence[Message]) -> Input:
        """A template that is a chat's own turn takes every user message, and the answers between them."""
        encoder = loaded.tuned.encoder
        turns = [
            (m.role, encoder.template.render_input({field: m.text}) if m.role == "user" else m.text)
            for m in messages
        ]
        if encoder.system is not None and not any(role in ("system", "developer") for role, _ in turns):
            turns.insert(0, ("system", encoder.system))
        return self._as_chat(turns, encoder, Reading(rendering="template"))

    def _as_chat(
        self, turns: Sequence[tuple[str, str]], encoder: Encoder | None, reading: Reading | None = None
    ) -> Input:
        if not getattr(self.tokenizer, "chat_template", None):
            message = "The model has no chat template: use /v1/completions, or a prompt with a template."
            raise ApiError(400, message, param="messages", code="no_chat_template")
        chat = self._plain.conversation if encoder is None else encoder.conversation
        said = [("system" if role == "developer" else role, text) for role, text in turns]
        try:
            with self._lock:
                ids = chat.ids(said)
        except SoftPromptError as error:
            message = f"The model's chat template refuses these messages: {error.what}"
            raise ApiError(400, message, param="messages", code="chat_template") from None
        return self._checked(Input(ids, turns[-1][1], reading or Reading(rendering="chat")))

    def room(self, given: Input, wanted: int | None, loaded: Loaded | None, otherwise: int) -> int:
        """Tokens that the answer may have: `wanted`, where they fit.

        Without it as many as the prompt was trained for (`otherwise` for the plain model), or what is left.
        """
        most = self.limits.output_tokens
        if wanted is not None and wanted > most:
            message = f"At most {most} tokens are answered; {wanted} were asked for."
            raise ApiError(400, message, param="max_tokens", code="max_tokens_too_large")
        left = most if self.context is None else self.context - len(given.ids)
        if left < (wanted or 1):
            held = f"{len(given.ids)} of input and {wanted or 1} of answer"
            message = f"The model's context is {self.context} tokens; the request has {held}."
            raise ApiError(400, message, code="context_length_exceeded")
        if wanted is not None:
            return wanted
        if loaded is None:
            return min(otherwise, most, left)
        recipe = loaded.tuned.recipe
        vectors = int(recipe.method.options().get("length", 0))  # soft tokens take places too
        return min(recipe.task.max_new_tokens, most, max(1, left - vectors))

    def piece(self, *ids: int) -> str:
        """The text of ids by themselves."""
        with self._lock:
            return self.tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )

    def _checked(self, given: Input) -> Input:
        most = self.limits.input_tokens
        if most is not None and len(given.ids) > most:
            message = f"An input has at most {most} tokens; this one has {len(given.ids)}."
            raise ApiError(400, message, code="context_length_exceeded")
        return given
