"""A row's input is encoded, cut where a limit says so, and refused where it does not fit."""

from __future__ import annotations

from dataclasses import replace

from softprompt.data.capacity import Need
from softprompt.data.task import Limits
from softprompt.data.tokens import Ids, NoRoomInTemplate, Tokens, Turns
from softprompt.errors import SoftPromptError


def shorten(tokens: Tokens, limit: int | None, text: str) -> str:
    """Return the text without its first tokens, where it has more than `limit`."""
    ids = tokens.ids(text)
    return text if limit is None or len(ids) <= limit else tokens.last(text, ids, limit)


def written(tokens: Tokens, text: str, turns: Turns) -> str:
    """Return the text after demonstrations, each an input and its target, with a blank line between."""
    return "\n\n".join([*(before + tokens.after(before, answer) for before, answer in turns), text])


def input_ids(
    tokens: Tokens, limits: Limits, text: str, target_tokens: int, where: str, turns: Turns = ()
) -> tuple[Ids, int]:
    """Return (ids, tokens cut) of an input that leaves room for `target_tokens`.

    `turns` are demonstrations, each an input and its target, that are shown ahead of the text. Raises
    SoftPromptError, which names `where`, for an input that does not fit.
    """
    most = limits.max_input_tokens
    if turns:  # then the limit applies to each text alone, and what is too long together is refused
        text, most = shorten(tokens, most, text), None
    if not tokens.chat:
        text = written(tokens, text, turns)
    ids = tokens.of_chat(text, where, turns) if tokens.chat else tokens.of_input(text)
    total, room = len(ids), limits.room
    need = Need(total, target_tokens, shown=len(turns))
    if tokens.chat and total > (room.for_input(need) or total):
        need = replace(need, least_input=len(tokens.of_chat("", where, turns)) + 1)
    if most is None:
        room.check(need, where)
    else:
        room.check_answer(need, where)
    free = room.for_input(need)
    if free is not None and free < 1:
        raise room.no_room(need, where)
    limit = min((n for n in (most, free) if n is not None), default=total)
    if total > limit:
        if tokens.chat:
            ids = _cut_chat(tokens, limits, text, limit, need, where, turns)
        else:  # the model expects its begin token whatever is cut
            ahead = ids[: min(tokens.special_ahead(ids, text), limit)]
            ids = ahead + ids[total - (limit - len(ahead)) :]
    ids = ids or tokens.stand_in(where)
    return ids, max(0, total - len(ids))


def _cut_chat(
    tokens: Tokens, limits: Limits, text: str, limit: int, need: Need, where: str, turns: Turns
) -> Ids:
    try:
        return tokens.of_chat_cut(text, need.input, limit, where, turns)
    except NoRoomInTemplate as error:
        room = limits.room.for_input(need)
        if room is not None and room <= error.least:
            raise limits.room.no_room(replace(need, least_input=error.least + 1), where) from None
        raise SoftPromptError(
            f"{where}: {limit} tokens leave no room for the input",
            why=f"the chat template and the system text take {error.least} tokens alone",
            fix=f"data.max_input_tokens={min(error.least + 64, room or error.least + 64)}, "
            "or a shorter system text",
        ) from None
