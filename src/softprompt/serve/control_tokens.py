"""Control tokens in a client's text are allowed, read as text, or refused.

To read them as text, stand-ins replace the characters that control tokens begin with, one for one, in the
client's text. After the template has written its own text around it, the template's control tokens are
replaced by names that no client can know, the stand-ins by their characters, and a copy of the tokenizer that
reads control tokens as text encodes the result. A text without control tokens is read as in training.
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
PRIVATE = range(0xF0000, 0xFFFFE)  # characters of no script, for random names of the template's tokens
PRINTABLE = range(0x1D000, 0x1D0F6)  # stand-ins: musical symbols, which `repr` does not escape
STAND_INS = range(0x100000, 0x10FFFE)  # others, for a text that uses those
REFUSED = "this server takes none from clients (--control-tokens refuse)"
UNCLEAR = "the template changes the text, so that the token cannot be distinguished from the template's own"
Hide = Callable[[Any], Any]


class ControlToken(InvalidRequest):
    """A client's text that holds a control token, which this server refuses."""

    code = "control_token"


@final
class Controls:
    """Applies the server's policy to the texts of a request."""

    def __init__(self, tokenizer: Any, policy: Policy) -> None:
        """Raises SoftPromptError for an unknown policy, and for a tokenizer that cannot read them as text."""
        if policy not in POLICIES:
            raise unknown("policy for control tokens", policy, POLICIES)
        self.tokenizer, self.policy = tokenizer, policy
        names = sorted(control_tokens(tokenizer).values(), key=len, reverse=True)
        self._written = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        # in both cases, since a template may change the case; & and \\ begin escapes of HTML and JSON
        cases = {case for name in names for case in (name[0], name[0].lower(), name[0].upper())}
        self._first = {case for case in cases if len(case) == 1} | {"&", "\\"}
        self._literal = Copy(tokenizer) if policy == "escape" else None

    def guard(self, values: Iterable[Any], write: Callable[[Hide], str]) -> Guard | None:
        """Return the guard for a client's texts (or rows); None where they can be read as they are.

        `write(hide)` returns the text that the model will read, with `hide` applied to the client's part. A
        control token is the client's where it is in that text, and not in the text with stand-ins. Raises
        ControlToken where the policy refuses one, and where stand-ins would change the text.
        """
        if self.policy == "allow":
            return None
        texts = list(_texts(values))
        used = set().union(*texts)
        if used.isdisjoint(self._first):
            return None
        if self.policy == "refuse" and (written := next(filter(None, map(self._held, texts)), None)):
            raise _refusal(written[0][1], REFUSED)  # also where the template omits that text
        plain = write(lambda text: text)
        tokens = self._held(plain)
        if not tokens:
            return None
        free = (chr(code) for code in (*PRINTABLE, *STAND_INS) if chr(code) not in used)
        stand_ins = dict(zip(sorted(self._first), free, strict=False))
        if len(stand_ins) < len(self._first):
            raise _refusal(tokens[0][1], "the text uses all characters that could replace it")
        guard = Guard(self._literal, stand_ins)
        try:
            hidden = write(guard.hide)
        except SoftPromptError:  # the template depends on the hidden text
            raise _refusal(tokens[0][1], UNCLEAR) from None
        ours, aligned = self._held(hidden), guard.show(hidden) == plain  # the template's own tokens
        if (ours == tokens) if aligned else ([name for _, name in ours] == [name for _, name in tokens]):
            return None
        theirs = next((name for place, name in tokens if (place, name) not in ours), tokens[0][1])
        if self.policy == "refuse":
            raise _refusal(theirs, REFUSED)
        if not aligned:
            raise _refusal(theirs, UNCLEAR)
        return guard

    def _held(self, text: str) -> list[tuple[int, str]]:
        return [(match.start(), match[0]) for match in self._written.finditer(text)]


def _refusal(name: str, why: str) -> ControlToken:
    return ControlToken(f"the text holds the control token {name}", why=why, fix="write it otherwise")


@final
class Guard:
    """Replaces, in one request, the characters that control tokens begin with by stand-ins, and back."""

    def __init__(self, literal: Copy | None, stand_ins: Mapping[str, str]) -> None:
        self._hidden = str.maketrans(dict(stand_ins))
        self._shown = str.maketrans({stand_in: character for character, stand_in in stand_ins.items()})
        self._literal = literal

    def hide(self, value: Any) -> Any:
        """Return a client's text, row or list with stand-ins."""
        if isinstance(value, str):
            return value.translate(self._hidden)
        if isinstance(value, Mapping):
            return {self.hide(key): self.hide(item) for key, item in value.items()}
        return [self.hide(item) for item in value] if isinstance(value, list | tuple) else value

    def show(self, text: str) -> str:
        return text.translate(self._shown)

    def shown(self, example: Example) -> Example:
        rendered = example.rendered
        choices = None if rendered.choices is None else tuple(map(self.show, rendered.choices))
        return replace(example, rendered=replace(rendered, input=self.show(rendered.input), choices=choices))

    def encoder(self, encoder: Encoder) -> Encoder:
        """Return the same encoder, which reads stand-ins as the characters that they replace."""
        return encoder.reading(_Reading(self, self._literal)) if self._literal is not None else encoder


@final
class Copy:
    """A copy of a tokenizer that reads control tokens as text, and random names as control tokens."""

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise SoftPromptError(
                "the model's tokenizer cannot read control tokens as text",
                why="it is not a tokenizer of the library tokenizers",
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
        """Return ids and offsets of a text whose control tokens are the template's, except for stand-ins.

        Raises ControlToken where the vocabulary reads plain text as a control token.
        """
        named = self._written.sub(lambda match: self._names[match[0]], text)
        encoding = self._copy.encode(guard.show(named), add_special_tokens=special)
        for token, added in zip(encoding.ids, encoding.special_tokens_mask, strict=True):
            if not added and token in self.controls:
                raise ControlToken(
                    f"the text holds the control token {self.controls[token]}",
                    why="the model's vocabulary cannot write it as text",
                    fix="write it otherwise",
                )
        return [self._ids.get(token, token) for token in encoding.ids], encoding.offsets


@final
class _Reading:
    """Behaves as a tokenizer for an encoder, in one guarded request."""

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


def _texts(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _texts(value)
            yield from _texts(value.values())
        elif isinstance(value, list | tuple):
            yield from _texts(value)
