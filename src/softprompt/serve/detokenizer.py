"""Tokens to text as they come: never half a character, and never part of a stop string.

Bytes of one character may be spread over several tokens, and what a token adds to a text can depend on the
token before it. So a few tokens are decoded with and without the new one, and the difference is what it adds.
(`tokenizers.decoders.DecodeStream` does the same, but does not give what is left at the end, where an answer
may end within a character.)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, final

from .token_pieces import BROKEN

LONGEST = 8  # tokens: more than any character has bytes, so that what they do not complete is broken


@final
class Detokenizer:
    """Text that tokens add, one after the other.

    `behind`: tokens that they go on from. A tokenizer that takes a text's first space away leaves it there.
    A character that `behind` holds a part of is given whole, with the token that completes it. `controls`:
    ids of control tokens, which add no text and part no character. With `named` they are written by name.
    """

    def __init__(
        self,
        tokenizer: Any,
        behind: Sequence[int] = (),
        *,
        controls: Collection[int] = (),
        named: bool = False,
    ) -> None:
        self.tokenizer, self.named, self.controls = tokenizer, named, () if named else controls
        self.ids = [token for token in behind[-4 * LONGEST :] if token not in controls][-LONGEST:]
        self._told = len(self.ids)  # how many of them are in the text that was given out
        while self._told and self._decode(self.ids[: self._told]).endswith(BROKEN):
            self._told -= 1
            if len(self.ids) - self._told >= LONGEST // 2:  # no character has so many bytes: it is broken
                self._told = len(self.ids)
                break

    def add(self, token: int) -> str:
        """The text that it completes; '' in the middle of a character."""
        if token in self.controls:
            return ""
        self.ids.append(token)
        before, now = self._decode(self.ids[: self._told]), self._decode(self.ids)
        if now.endswith(BROKEN) and len(self.ids) - self._told < LONGEST:
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
            self.tokenizer.decode(
                list(ids), skip_special_tokens=not self.named, clean_up_tokenization_spaces=False
            )
        )


@final
class Stops:
    """Finds the first of some strings in a text that comes in pieces, wherever the pieces end.

    A control token is no text, but where a stop string names one it is matched by its name, and not shown.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stop for stop in stops if stop)
        self._held, self._shown = "", ""  # of each character that is held back whether it may be shown

    def add(self, piece: str, control: str = "") -> tuple[str, bool]:
        """What may be shown of the text so far, and whether a stop string has come (which is not shown).

        `control`: the name of a control token that follows the piece.
        """
        text = self._held + piece + control
        shown = self._shown + "1" * len(piece) + "0" * len(control)
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        end = min(found) if found else len(text) - max((_overlap(text, s) for s in self.stops), default=0)
        self._held, self._shown = ("", "") if found else (text[end:], shown[end:])
        return _visible(text[:end], shown), bool(found)

    def rest(self) -> str:
        """What was held back, at the end."""
        held, self._held = _visible(self._held, self._shown), ""
        return held


def _visible(text: str, shown: str) -> str:
    if "0" not in shown:
        return text
    return "".join(c for c, mark in zip(text, shown, strict=False) if mark == "1")


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that a stop string begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
