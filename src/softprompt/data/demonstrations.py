"""Demonstrations come ahead of an input as a few-shot prompt writes them; here they are apart from the input.

What a few-shot prompt writes ahead of the input is the same for every input: its beginning (a begin token,
the system text of a chat) and the demonstrations. A prefix can hold the keys and values of these tokens; then
an input is encoded without its beginning (`template.continues`). Both sides are split at the same place:
where two conversations that differ in their last text alone begin to differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from softprompt.data.tokens import Ids, Tokens, Turns

if TYPE_CHECKING:
    from softprompt.data.encode import Encoder

PROBES = ("A", "9")  # texts that begin with different tokens


@dataclass(frozen=True, slots=True)
class Demonstrations:
    """The tokens ahead of an input, and where each demonstration begins and ends in them."""

    ids: Ids
    spans: tuple[tuple[int, int], ...]


def demonstrations(encoder: Encoder, turns: Turns) -> Demonstrations:
    """Return the tokens that a few-shot prompt of these (input, target) has ahead of every input.

    In chat, the first tokens of the user's turn belong to them.
    """
    ends = [len(_ahead(encoder, turns[:count])) for count in range(len(turns) + 1)]
    return Demonstrations(_ahead(encoder, turns), tuple(pairwise(ends)))


def split_input(tokens: Tokens, ids: Ids, text: str, *, is_whole: bool) -> tuple[Ids, Ids]:
    """Split an input's tokens: its beginning, and what follows demonstrations.

    `is_whole`: nothing was cut off, so that the text is tokenized as it continues another.
    """
    if tokens.chat:
        count = common(*(tokens.of_chat(probe, "the chat template") for probe in PROBES))
        return ids[:count], ids[count:]
    count = tokens.special_ahead(ids, text)
    rest = tokens.of_continuation(text) if is_whole else ids[count:]
    return (ids[:count], rest) if rest else ((), ids)


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the tokens that both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))


def _ahead(encoder: Encoder, turns: Turns) -> Ids:
    whole, other = (encoder.ids_after(turns, probe) for probe in PROBES)
    return whole[: common(whole, other)]
