"""Tokens to text as they come: never half a character, and never part of a stop string.

Bytes of one character may be spread over several tokens, and what a token adds to a text can depend on the
token before it. So a few tokens are decoded with and without the new one, and the difference is what it adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from transformers import PreTrainedTokenizerBase

BROKEN = "�"  # what an unfinished character decodes to


@final
class Detokenizer:
    """Text that the tokens of one answer add to it, one token after the other."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []  # those that are still needed
        self._told = 0  # how many of them are in the text that was given out

    def add(self, token: int) -> str:
        """The text that it completes; '' in the middle of a character."""
        self.ids.append(token)
        before, now = self._decode(self.ids[: self._told]), self._decode(self.ids)
        if now.endswith(BROKEN) and len(self.ids) - self._told < 8:  # longer than any character: it is broken
            return ""
        self.ids = self.ids[self._told :]
        self._told = len(self.ids)
        return now[len(before) :]

    def rest(self) -> str:
        """What is left at the end, unfinished characters as they are."""
        before, now = self._decode(self.ids[: self._told]), self._decode(self.ids)
        self._told = len(self.ids)
        return now[len(before) :]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )


@final
class Stops:
    """Finds the first of some strings in a text that comes in pieces, wherever the pieces end."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def add(self, piece: str) -> tuple[str, bool]:
        """What may be shown of the text so far, and whether a stop string has come (which is not shown)."""
        text = self._held + piece
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        keep = max((self._overlap(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def rest(self) -> str:
        """What was held back, at the end."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        longest = min(len(text), len(stop) - 1)
        return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
