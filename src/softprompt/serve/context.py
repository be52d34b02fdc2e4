"""Whether a request fits the model's context, and who takes what of it: one rule for every way to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .request import ContextExceeded

if TYPE_CHECKING:
    from ..injection import Injection

SOFT = ("before", "after")  # vectors that stand in the sequence; those of a prefix take no place in it


def vectors_of(injection: Injection) -> tuple[int, int]:
    """How many vectors one row gets, and how many of them take places of the context."""
    counts = {name: int(part.mask.sum()) for name, part in injection.channels().items()}
    return sum(counts.values()), sum(counts.get(name, 0) for name in SOFT)


def check_fits(
    what: str, tokens: int, soft: int, answer: int, context: int | None, *, named: str = "", limit: str = ""
) -> None:
    """Raises ContextExceeded unless `tokens` of input, soft tokens and `answer` tokens fit the context.

    `what` the input was sent as. `named`: what the answer's tokens are, where not `max_tokens`. `limit`: why
    the context is shorter than the model says.
    """
    total = tokens + soft + answer
    if context is None or total <= context:
        return
    parts = [f"{tokens} of the {what}"]
    parts += [f"{soft} of soft tokens"] if soft else []
    parts += [f"{answer} of the {named or 'answer (max_tokens)'}"] if answer else []
    raise ContextExceeded(
        f"the model's context is {context} tokens, and the request takes {total}: {', '.join(parts)}",
        why=limit,
        fix=_fix(what, tokens, soft, answer, context, named),
    )


def _fix(what: str, tokens: int, soft: int, answer: int, context: int, named: str) -> str:
    """`room` is for input and answer; `lower`: the answer may be shorter."""
    room, lower = context - soft, not named
    least = min(answer, 1) if lower else answer
    if room - least < 1:
        if soft and context - least >= 1:
            return "use a prompt of fewer soft tokens"
        size = f" to {room - tokens} tokens" if room - tokens >= 1 else ""
        return f"shorten the {named or what}{size}"
    if lower and room - tokens >= 1 and answer > 1:
        shorter = f", or shorten the {what} to {room - answer} tokens" if room > answer else ""
        return f"lower max_tokens to {room - tokens}{shorter}"
    if room > answer:
        return f"shorten the {what} to {room - answer} tokens"
    return f"shorten the {what} to {room - least} tokens, and lower max_tokens to {least}"
