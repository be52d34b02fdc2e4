"""One rule decides on every route whether a request fits the model's context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .request import ContextExceeded

if TYPE_CHECKING:
    from ..injection import Injection

SOFT = ("before", "after")  # vectors in the sequence; those of a prefix take no place in it


def vectors_of(injection: Injection) -> tuple[int, int]:
    """Return how many vectors one row gets, and how many of them take places of the context."""
    counts = {name: int(part.mask.sum()) for name, part in injection.channels().items()}
    return sum(counts.values()), sum(counts.get(name, 0) for name in SOFT)


def check_fits(
    kind: str, tokens: int, soft: int, answer: int, context: int | None, *, named: str = "", limit: str = ""
) -> None:
    """Raise ContextExceeded unless `tokens` of input, soft tokens and `answer` tokens fit the context.

    `kind` names the input in the message, `named` the answer's tokens where they are not `max_tokens`.
    `limit`: why the context is shorter than the model says.
    """
    total = tokens + soft + answer
    if context is None or total <= context:
        return
    parts = [f"{tokens} of the {kind}"]
    parts += [f"{soft} of soft tokens"] if soft else []
    parts += [f"{answer} of the {named or 'answer (max_tokens)'}"] if answer else []
    raise ContextExceeded(
        f"the model's context is {context} tokens, and the request takes {total}: {', '.join(parts)}",
        why=limit,
        fix=_fix(kind, tokens, soft, answer, context, named),
    )


def _fix(kind: str, tokens: int, soft: int, answer: int, context: int, named: str) -> str:
    room, lower = context - soft, not named  # for input and answer; may the answer be shorter?
    least = min(answer, 1) if lower else answer
    if room - least < 1:
        if soft and context - least >= 1:
            return "use a prompt of fewer soft tokens"
        size = f" to {room - tokens} tokens" if room - tokens >= 1 else ""
        return f"shorten the {named or kind}{size}"
    if lower and room - tokens >= 1 and answer > 1:
        shorter = f", or shorten the {kind} to {room - answer} tokens" if room > answer else ""
        return f"lower max_tokens to {room - tokens}{shorter}"
    if room > answer:
        return f"shorten the {kind} to {room - answer} tokens"
    return f"shorten the {kind} to {room - least} tokens, and lower max_tokens to {least}"
