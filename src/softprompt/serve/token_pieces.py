"""Each token of a vocabulary has a text, bytes and a name, and some are control tokens.

Some tokenizers remove the space that a text begins with, so a token's text is what it adds behind another
token. A token that is a part of a character has bytes and no text: its name is written as OpenAI writes it,
with `\\xe2` for a byte that is no text.
"""

from __future__ import annotations

import functools
import re
from typing import Any, final

from transformers.convert_slow_tokenizer import bytes_to_unicode

BROKEN = "�"  # a part of a character decodes to this
KEPT = 200_000  # names and bytes that are remembered
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")  # a byte token of vocabularies with byte fallback
BYTES = {character: byte for byte, character in bytes_to_unicode().items()}  # of byte-level vocabularies


@final
class Pieces:
    """Texts, bytes and names of one tokenizer's tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.controls = control_tokens(tokenizer)
        self._anchor = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
        self._before = self.decode(self._anchor)
        self.text = functools.lru_cache(KEPT)(self._text)
        self.bytes = functools.lru_cache(KEPT)(self._bytes)

    def decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def name(self, token: int, first: bool = False) -> str:
        """Return a token's name among log-probabilities; `first`: the token begins the text."""
        data = self.bytes(token, first)
        if data is None:
            return self.text(token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "".join(chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}" for byte in data)

    def _text(self, token: int, first: bool = False) -> str:
        """Return what it adds behind another token; a part of a character is `�`."""
        text = self.decode([token] if first else [*self._anchor, token])
        if first or not text.startswith(self._before):
            return self.decode([token])
        return text[len(self._before) :]

    def _bytes(self, token: int, first: bool = False) -> bytes | None:
        """Return the bytes that it adds to a text; None for a control token."""
        if token in self.controls:
            return None
        text = self.text(token, first)
        if BROKEN not in text:
            return text.encode("utf-8", "replace")
        written = str(self.tokenizer.convert_ids_to_tokens(token))
        if byte := BYTE.fullmatch(written):
            return bytes([int(byte[1], 16)])
        if all(character in BYTES for character in written):
            return bytes(BYTES[character] for character in written)
        return text.encode()


def control_tokens(tokenizer: Any) -> dict[int, str]:
    """Return special tokens by id, as they are written: each is read as one token, and answers omit them."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    controls = {int(token): str(name) for token, name in added.items() if getattr(name, "special", False)}
    return controls | dict(
        zip(tokenizer.all_special_ids, map(str, tokenizer.all_special_tokens), strict=True)
    )
