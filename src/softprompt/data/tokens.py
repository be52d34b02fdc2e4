"""Texts that follow each other are tokenized: input, target, turns of a conversation.

A target continues where its input ended, perhaps with vectors between them, so the two are encoded
separately. This file knows a tokenizer (any of `transformers`), and no rows, labels or tasks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from softprompt.data.chat import Chat
from softprompt.data.task import ChatSettings, ModelSide
from softprompt.errors import SoftPromptError

Ids = tuple[int, ...]
Turns = Sequence[tuple[str, str]]  # (input, target), shown ahead of an input


class NoRoomInTemplate(Exception):
    """The room is taken by the chat template and the system text, which need `least` tokens."""

    def __init__(self, least: int) -> None:
        super().__init__(least)
        self.least = least


def beyond_vocabulary(
    tokenizer: Any, token: int, rows: int, where: str, *, text: str | None = None
) -> SoftPromptError:
    """Return the error for a token that a model of `rows` embeddings does not have.

    `text` is the row's text; a token that is not in it comes from the tokenizer or its chat template.
    """
    name = str(tokenizer.convert_ids_to_tokens(token))
    resize = "call model.resize_token_embeddings(len(tokenizer)) in transformers, and save the model again"
    why = f"its number is {token}, but the model has {rows} embeddings: the tokenizer alone was extended"
    if text is not None and name in text:
        fix = f"remove it from the text, or {resize}"
    else:
        why += "; the tokenizer, or its chat template, adds it"
        fix = f"use the tokenizer that the model was trained with, or {resize}"
    return SoftPromptError(f"{where}: the model has no embedding for the token {name!r}", why, fix)


def unknown_to_model(tokenizer: Any, rows: int | None) -> list[str]:
    """List the tokenizer's tokens that a model of `rows` embeddings does not have."""
    if rows is None or len(tokenizer) <= rows:
        return []
    return [
        token for token, number in sorted(tokenizer.get_vocab().items(), key=lambda p: p[1]) if number >= rows
    ]


def vocabulary_fingerprint(tokenizer: Any) -> str:
    """Return a short hash of a tokenizer's vocabulary; without a tokenizer, that of an empty vocabulary."""
    entries = sorted(tokenizer.get_vocab().items()) if tokenizer is not None else []
    return hashlib.sha256(repr(entries).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Tokens:
    """A tokenizer, and how texts are written for it; `system` has an effect in chat mode only."""

    tokenizer: Any
    model: ModelSide = field(default_factory=ModelSide)
    chat: bool = False
    system: str | None = None
    chat_settings: ChatSettings = field(default_factory=ChatSettings)

    @cached_property
    def conversation(self) -> Chat:
        """Return the writer of conversations by the model's chat template."""
        return Chat(self.tokenizer, self.chat_settings.options, self.chat_settings.date)

    @property
    def end_ids(self) -> set[int | None]:
        """Return the tokens that end an answer."""
        return {*self.model.ends, self.tokenizer.eos_token_id}

    def check_known(self, ids: Ids, where: str, text: str | None = None) -> None:
        """Raise SoftPromptError for a token that has no embedding in the model."""
        rows = self.model.vocabulary
        if rows is not None and ids and max(ids) >= rows:
            raise beyond_vocabulary(self.tokenizer, max(ids), rows, where, text=text)

    def ids(self, text: str, special: bool = False) -> Ids:
        """Tokenize a text alone."""
        # verbose=False: a warning about the tokenizer's own maximum; the context is checked here.
        return tuple(self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        """Return the text of ids, with every space that they have."""
        return self.tokenizer.decode(
            list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )

    def end(self) -> int:
        """Return the token that ends an answer."""
        end = self.tokenizer.eos_token_id
        if end is None:
            raise SoftPromptError(
                "the model's tokenizer has no end token",
                why="without one a generated answer would never end",
                fix="set eos_token in its tokenizer_config.json",
            )
        return end

    def stand_in(self, where: str) -> Ids:
        """Return the ids that replace an input without tokens."""
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return (token,)
        raise SoftPromptError(f"{where}: the input gives no token", fix="write some text into template.input")

    def of_input(self, text: str) -> Ids:
        """Return the token ids of an input, with special tokens, without an end token that the tokenizer
        appends.

        An encoder keeps its end token, whether it reads the input separately from the target or nothing else.
        """
        ids, end = self.ids(text, special=True), self.tokenizer.eos_token_id
        if self.model.kind == "decoder" and ids and ids[-1] == end:
            body = self.ids(text)
            if len(ids) > len(body) and (not body or body[-1] != end):
                return ids[:-1]
        return ids

    def special_ahead(self, ids: Ids, text: str) -> int:
        """Count the special tokens ahead of the text's own in `of_input(text)`, which are `ids`."""
        body = self.ids(text)
        places = range(len(ids) + 1) if body else ()
        return next((n for n in places if ids[n : n + len(body)] == body), 0)

    def of_continuation(self, text: str) -> Ids:
        """Return the token ids of a text that continues another.

        Some tokenizers (SentencePiece) put a space before the start of a text; after a line break, which is
        removed again, they do not.
        """
        if self.model.reads_apart:
            return self.ids(text)
        anchor, both = self.ids("\n"), self.ids("\n" + text)
        rest = both[len(anchor) :]
        whole = both[: len(anchor)] == anchor and self.decode(rest, False).strip() == text.strip()
        return rest if whole else self.ids(text)

    def lead(self, input_text: str) -> str:
        """Return the space between input and target: none in chat, nor after whitespace or nothing."""
        return (
            "" if self.model.reads_apart or self.chat or not input_text or input_text[-1].isspace() else " "
        )

    def with_lead(self, lead: str, text: str) -> str:
        """Return the text after that space, unless it begins with one."""
        return text if text[:1].isspace() else lead + text

    def after(self, before: str, text: str) -> str:
        """Return the text with the space that separates it from `before`."""
        return self.with_lead(self.lead(before), text)

    def last(self, text: str, words: Ids, keep: int) -> str:
        """Return the text of the last `keep` of its tokens, which are `words`."""
        if getattr(self.tokenizer, "is_fast", False):
            spans = self.tokenizer(
                text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )["offset_mapping"]
            return text[spans[len(words) - keep][0] :]
        # The first kept token may begin inside a character.
        return self.decode(words[-keep:], skip_special_tokens=False).lstrip("\ufffd")

    def of_chat(self, text: str, where: str, turns: Turns = ()) -> Ids:
        """Return the ids of a conversation that ends where the model is to answer `text`."""
        system = [("system", self.system)] if self.system is not None else []
        earlier = [part for turn in turns for part in zip(("user", "assistant"), turn, strict=True)]
        try:
            return self.conversation.ids([*system, *earlier, ("user", text)])
        except SoftPromptError as error:
            raise SoftPromptError(f"{where}: {error.what}", error.why, error.fix) from None

    def of_chat_cut(self, text: str, total: int, limit: int, where: str, turns: Turns = ()) -> Ids:
        """Return a conversation of `limit` tokens: the user's text loses its first ones."""
        words = self.ids(text)
        keep = len(words)
        while keep > 0:
            keep -= max(1, total - limit)
            kept = self.last(text, words, keep) if keep > 0 else ""
            ids = self.of_chat(kept, where, turns)
            if len(ids) <= limit and kept:
                return ids
            total = len(ids)  # a text that begins elsewhere may have other tokens: cut again
        raise NoRoomInTemplate(total)
