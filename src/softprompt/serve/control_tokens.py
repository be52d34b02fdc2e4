"""Control tokens that are written in a client's text: let through, read as text, or refused.

Read as text means exactly that: a stand-in, one character for one, marks them in the client's text. Where the
template has written its own text around it, the template's control tokens become tokens of a copy of the
tokenizer that no client can name, the stand-ins become what they stand for, and the copy reads control tokens
as text. A text without control tokens never comes here, and is read as in training.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, final

from tokenizers import AddedToken, Tokenizer

from ..data.encode import Encoder
from ..data.example import Example
from ..errors import SoftPromptError, unknown
from .request import InvalidRequest
from .token_pieces import control_tokens

Policy = Literal["allow", "escape", "refuse"]
POLICIES: tuple[Policy, ...] = ("allow", "escape", "refuse")
PRIVATE = range(0xF0000, 0xFFFFE)  # characters of no script: names that are drawn for the template's tokens
PRINTABLE = range(
    0x1D000, 0x1D0F6
)  # musical symbols, in a client's text: Python shows them as they are in a list
STAND_INS = range(0x100000, 0x10FFFE)  # others, where a text uses those
REFUSED = "this server takes none from clients (--control-tokens refuse)"
UNCLEAR = "the template changes the text, so that the token cannot be told from the template's own"
Hide = Callable[[Any], Any]


class ControlToken(InvalidRequest):
    """A client's text that holds a control token, which this server refuses."""

    code = "control_token"


@final
class Controls:
    """What becomes of them, by `policy`."""

    def __init__(self, tokenizer: Any, policy: Policy) -> None:
        """Raises SoftPromptError for an unknown policy, and for a tokenizer that cannot read them as text."""
        if policy not in POLICIES:
            raise unknown("way with control tokens", policy, POLICIES)
        self.tokenizer, self.policy = tokenizer, policy
        names = sorted(control_tokens(tokenizer).values(), key=len, reverse=True)
        self._written = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        # in both cases, for a template may change the case, and with what HTML and JSON escape others by
        cases = {case for name in names for case in (name[0], name[0].lower(), name[0].upper())}
        self._first = {case for case in cases if len(case) == 1} | {"&", "\\"}
        self._literal = Copy(tokenizer) if policy == "escape" else None

    def guard(self, said: Iterable[Any], write: Callable[[Hide], str]) -> Guard | None:
        """For a client's texts (rows, or lists of them); None where nothing is to be done.

        `write(hide)` gives the text that the model is to read, where `hide` was applied to what the client
        wrote. What counts is a control token in that text which is no longer there once stand-ins are put in.
        Raises ControlToken where the policy refuses one, and where stand-ins would change the text.
        """
        if self.policy == "allow":
            return None
        texts = list(_texts(said))
        used = set().union(*texts)
        if used.isdisjoint(self._first):
            return None
        if self.policy == "refuse" and (said_so := next(filter(None, map(self._held, texts)), None)):
            raise _refusal(said_so[0][1], REFUSED)  # also where the template leaves that text out
        plain = write(lambda text: text)
        found = self._held(plain)
        if not found:
            return None
        free = (chr(code) for code in (*PRINTABLE, *STAND_INS) if chr(code) not in used)
        stand_ins = dict(zip(sorted(self._first), free, strict=False))
        if len(stand_ins) < len(self._first):
            raise _refusal(found[0][1], "the text uses all characters that could stand for it")
        guard = Guard(self._literal, stand_ins)
        try:
            hidden = write(guard.hide)
        except SoftPromptError:  # a template that looks for what is hidden
            raise _refusal(found[0][1], UNCLEAR) from None
        own, aligned = self._held(hidden), guard.show(hidden) == plain
        if (own == found) if aligned else ([name for _, name in own] == [name for _, name in found]):
            return None
        theirs = next((name for place, name in found if (place, name) not in own), found[0][1])
        if self.policy == "refuse":
            raise _refusal(theirs, REFUSED)
        if not aligned:
            raise _refusal(theirs, UNCLEAR)
        return guard

    def _held(self, text: str) -> list[tuple[int, str]]:
        """Control tokens that are written in a text, with their places."""
        return [(found.start(), found[0]) for found in self._written.finditer(text)]


def _refusal(name: str, why: str) -> ControlToken:
    return ControlToken(f"the text holds the control token {name}", why=why, fix="write it otherwise")


@final
class Guard:
    """The stand-ins of one request. They stand for what control tokens begin with, one character for one."""

    def __init__(self, literal: Copy | None, stand_ins: Mapping[str, str]) -> None:
        self._hidden = str.maketrans(dict(stand_ins))
        self._shown = str.maketrans({stand_in: character for character, stand_in in stand_ins.items()})
        self._literal = literal

    def hide(self, said: Any) -> Any:
        """What the client wrote, with stand-ins."""
        if isinstance(said, str):
            return said.translate(self._hidden)
        if isinstance(said, Mapping):
            return {self.hide(key): self.hide(value) for key, value in said.items()}
        return [self.hide(one) for one in said] if isinstance(said, list | tuple) else said

    def show(self, text: str) -> str:
        """A text as it was written."""
        return text.translate(self._shown)

    def shown(self, example: Example) -> Example:
        """An example whose texts are as they were written."""
        rendered = example.rendered
        choices = None if rendered.choices is None else tuple(map(self.show, rendered.choices))
        return replace(example, rendered=replace(rendered, input=self.show(rendered.input), choices=choices))

    def encoder(self, encoder: Encoder) -> Encoder:
        """The same encoder, which reads stand-ins as what they stand for."""
        return encoder.reading(_Reading(self, self._literal)) if self._literal is not None else encoder


@final
class Copy:
    """A copy of a tokenizer that reads control tokens as text, and tokens of other names as them."""

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise SoftPromptError(
                "the model's tokenizer cannot read control tokens as text",
                why="it is not one of the library tokenizers",
                fix="--control-tokens refuse",
            )
        self.tokenizer, self.controls = tokenizer, control_tokens(tokenizer)
        self._copy = Tokenizer.from_str(backend.to_str())
        self._copy.no_truncation()
        self._copy.no_padding()
        self._copy.encode_special_tokens = True
        draw, known = random.SystemRandom(), getattr(tokenizer, "added_tokens_decoder", {})
        self._names: dict[str, str] = {}
        for token, name in self.controls.items():
            drawn = "".join(chr(draw.choice(PRIVATE)) for _ in range(max(3, len(name))))
            flags = {side: getattr(known.get(token), side, False) for side in ("lstrip", "rstrip")}
            self._copy.add_tokens([AddedToken(drawn, normalized=False, special=False, **flags)])
            self._names[name] = drawn
        vocabulary = self._copy.get_vocab()
        self._ids = {vocabulary[self._names[name]]: token for token, name in self.controls.items()}
        longest = sorted(self._names, key=len, reverse=True)
        self._written = re.compile("|".join(map(re.escape, longest)) or r"(?!)")

    def encode(self, text: str, guard: Guard, special: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of a text whose control tokens are the template's own, but for stand-ins; and their places.

        Raises ControlToken where a vocabulary makes control tokens of any text.
        """
        named = self._written.sub(lambda found: self._names[found[0]], text)
        made = self._copy.encode(guard.show(named), add_special_tokens=special)
        for token, added in zip(made.ids, made.special_tokens_mask, strict=True):
            if not added and token in self.controls:
                raise ControlToken(
                    f"the text holds the control token {self.controls[token]}",
                    why="the model's vocabulary cannot write it as text",
                    fix="write it otherwise",
                )
        return [self._ids.get(token, token) for token in made.ids], made.offsets


@final
class _Reading:
    """What an encoder asks of a tokenizer, for one guarded request."""

    def __init__(self, guard: Guard, literal: Copy) -> None:
        self._guard, self._literal = guard, literal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._literal.tokenizer, name)

    def __call__(self, text: str, add_special_tokens: bool = True, **_: Any) -> dict[str, Any]:
        ids, places = self._literal.encode(text, self._guard, add_special_tokens)
        return {"input_ids": ids, "offset_mapping": places}

    def apply_chat_template(
        self, turns: Sequence[Any], *, tokenize: bool = True, return_dict: bool = False, **options: Any
    ) -> Any:
        tokenizer = self._literal.tokenizer
        written = tokenizer.apply_chat_template(turns, tokenize=False, **options)
        return self(written, add_special_tokens=False)["input_ids"] if tokenize else written


def _texts(said: Iterable[Any]) -> Iterable[str]:
    for one in said:
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            yield from _texts(one)
            yield from _texts(one.values())
        elif isinstance(one, list | tuple):
            yield from _texts(one)
