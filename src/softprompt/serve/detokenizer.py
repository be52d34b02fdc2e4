"""Tokens are decoded as they arrive, never to half a character, and never to part of a stop string.

The bytes of one character may be spread over several tokens, and the text that a token adds can depend on the
token before it. So a few tokens are decoded with and without the new one, and the difference is what it adds.
"""

# tokenizers.decoders.DecodeStream cannot replace this. It has no way to flush an answer that ends within a
# character; it holds broken bytes back without limit; behind ids that end within a character it returns their
# text again; with byte-fallback vocabularies it raises "Invalid prefix" for some ids; and it needs a Rust
# tokenizer.

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, final

from .token_pieces import BROKEN

LONGEST = 8  # tokens: more than any character has bytes, so a character that they do not complete is broken


@final
class Detokenizer:
    """Returns the text that each token adds.

    `behind`: ids that the tokens continue, so that a tokenizer keeps their first space. A character that
    begins in `behind` is returned whole, with the token that completes it. `controls`: ids of control tokens,
    which add no text, and are ignored within a character. With `named` they are written by name.
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
        self._shown = len(self.ids)  # how many of them are in the text that was returned
        while self._shown and self._decode(self.ids[: self._shown]).endswith(BROKEN):
            self._shown -= 1
            if len(self.ids) - self._shown >= LONGEST // 2:  # no character has so many bytes
                self._shown = len(self.ids)
                break

    def add(self, token: int) -> str:
        """Return the text that the token completes: '' in the middle of a character."""
        if token in self.controls:
            return ""
        self.ids.append(token)
        before, now = self._decode(self.ids[: self._shown]), self._decode(self.ids)
        if now.endswith(BROKEN) and len(self.ids) - self._shown < LONGEST:
            return ""
        self.ids = self.ids[self._shown :]
        self._shown = len(self.ids)
        return now[len(before) :]

    def rest(self) -> str:
        """Return the rest at the end; an unfinished character is the replacement character."""
        before, now = self._decode(self.ids[: self._shown]), self._decode(self.ids)
        self._shown = len(self.ids)
        return now[len(before) :]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=not self.named, clean_up_tokenization_spaces=False
            )
        )


@final
class Stops:
    """Finds the first of some strings in a text that arrives in pieces, wherever the pieces end.

    A control token adds no text, but a stop string can contain its name, which is matched and not shown.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stop for stop in stops if stop)
        self._held, self._shown = "", ""  # `_shown`: "1" for each held character that is text

    def add(self, piece: str, control: str = "") -> tuple[str, bool]:
        """Return the text that can be shown now, and whether a stop string was found, which is not shown.

        `control`: the name of a control token that follows the piece.
        """
        text = self._held + piece + control
        shown = self._shown + "1" * len(piece) + "0" * len(control)
        places = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        end = min(places) if places else len(text) - max((_overlap(text, s) for s in self.stops), default=0)
        self._held, self._shown = ("", "") if places else (text[end:], shown[end:])
        return _visible(text[:end], shown), bool(places)

    def rest(self) -> str:
        """Return the text that was held back, at the end."""
        held, self._held = _visible(self._held, self._shown), ""
        return held


def _visible(text: str, shown: str) -> str:
    if "0" not in shown:
        return text
    return "".join(c for c, mark in zip(text, shown, strict=False) if mark == "1")


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of the text that a stop string begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
