"""An example is an encoded row."""

from __future__ import annotations

from dataclasses import dataclass

from softprompt.data.template import Rendered
from softprompt.data.tokens import Ids


@dataclass(frozen=True, slots=True)
class Example:
    """An example is one row as token ids; `target_ids` is empty if it was encoded without a target."""

    input_ids: Ids  # at least one token
    target_ids: Ids
    prompt: int  # index into the encoder's prompt names
    rendered: Rendered
    candidates: tuple[Ids, ...] | None  # labels or choices; `target_ids` is one of them
    truncated: int = 0  # tokens cut off, of the input (at its start) and of the target (at its end)
    places: Ids = ()  # where an encoder's answers are read, one a target; see `data.answer_positions`
    value: float | None = None  # the number that a regression row names
