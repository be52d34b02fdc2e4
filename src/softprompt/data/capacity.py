"""Rows are checked against a model's positions, with advice on what to change where a row does not fit.

A decoder-only model has one sequence: [input | soft tokens | answer]. An encoder-decoder model has two: the
encoder's holds the input, the decoder's the answer. The answer is as long as the row's target, or as the text
to be generated, whichever is longer. This file knows numbers, and no tokenizers or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from softprompt.errors import IN_SHELL, SoftPromptError

UNCUT = "what does not fit cannot be read by the model, and is never cut unasked"


@dataclass(frozen=True, slots=True)
class Need:
    """A row needs this many tokens."""

    input: int
    target: int  # the longest target or candidate
    least_input: int = 1  # tokens that cannot be cut off: the chat template's, and one more
    shown: int = 0  # demonstrations in the input


class TooLong(SoftPromptError):
    """A row does not fit into the model's positions."""

    def __init__(self, message: str, why: str, fix: str, room: Room, need: Need) -> None:
        super().__init__(message, why, fix)
        self.room, self.need = room, need


@dataclass(frozen=True, slots=True)
class Room:
    """A model has these positions, and some of them are taken in every row."""

    context: int | None = None  # of the input's sequence; None: no limit
    soft: int = 0  # soft tokens in it
    answer_context: int | None = None  # of a separate decoder
    answer_soft: int = 0  # soft tokens that the decoder reads before its own
    apart: bool = False  # input and answer are separate sequences
    new_tokens: int = 0  # task.max_new_tokens of a generation, else 0
    length: int = 0  # method.length: the number of soft tokens in each place
    limit: str = ""  # why `context` is shorter than the model was made for, or empty
    is_settled: bool = False  # of a tuned prompt: its recipe cannot be changed any more

    def answer(self, need: Need) -> int:
        """Return the positions that the row's answer takes."""
        return max(need.target, self.new_tokens)

    def for_input(self, need: Need) -> int | None:
        """Return the positions that are left for the input, below 1 where there are none; None: no limit."""
        if self.context is None:
            return None
        return self.context - self.soft - (0 if self.apart else self.answer(need))

    def check(self, need: Need, where: str) -> None:
        """Raise TooLong for a row that does not fit whole."""
        room = self.for_input(need)
        if room is not None and need.input > room:
            raise self.no_room(need, where)
        self.check_answer(need, where)

    def check_answer(self, need: Need, where: str) -> None:
        """Raise TooLong where a separate decoder does not hold the answer."""
        most = self.answer_context
        if self.apart and most is not None and max(self.answer(need), self.answer_soft) > most:
            raise self._error(need, where, most, "answer")

    def no_room(self, need: Need, where: str) -> TooLong:
        """Return the error for a row whose input does not fit, or of which cutting would leave nothing."""
        return self._error(need, where, self.context, "input and answer" if not self.apart else "input")

    def _error(self, need: Need, where: str, context: int | None, part: str) -> TooLong:
        parts = []
        if part != "answer":
            template = f" ({need.least_input - 1} of it the chat template's and system text's)"
            parts = [f"{need.input} of input" + (template if need.least_input > 1 else "")]
            parts.append(f"{self.soft} of soft tokens" if self.soft else "")
        if part != "input":
            written = self.new_tokens > need.target
            target = f"; the target has {need.target}" if need.target else ""
            parts.append(
                f"{self.new_tokens} to be written (task.max_new_tokens{target})"
                if written
                else f"{need.target} of target"
            )
            if part == "answer" and self.answer_soft:
                parts.append(f"{self.answer_soft} of soft tokens, read before it")
        stack = "decoder's " if part == "answer" else "encoder's "
        side = f"its {stack if self.apart else ''}context"
        return TooLong(
            f"{where}: too long for the model: {side} is {context} tokens, and the row takes "
            + " + ".join(filter(None, parts)),
            "; ".join(filter(None, (self.limit if part != "answer" else "", UNCUT))),
            fix([(self, need)]),
            self,
            need,
        )


def fix(rows: Sequence[tuple[Room, Need]]) -> str:
    """Return one change that makes all of these rows fit, or several to choose from; each alone suffices."""
    if shown := [need.shown for _, need in rows if need.shown]:
        return f"show fewer demonstrations than {min(shown)}, or shorter ones (data.max_input_tokens)"
    if rows[0][0].is_settled:
        return _settled(rows)
    options = [text for text in (_shorter_inputs(rows), _fewer_new(rows), _fewer_soft(rows)) if text]
    return ", or ".join(options) if options else _several(rows)


def _settled(rows: Sequence[tuple[Room, Need]]) -> str:
    options = []
    if not any(need.target for _, need in rows) and (fewer := _fewer_new(rows)):
        flag = "--max-new-tokens " if IN_SHELL.get() else "max_new_tokens="
        options.append(fewer.replace("task.max_new_tokens=", flag))
    lefts = [left for room, need in rows if (left := room.for_input(need)) is not None]
    if lefts and min(lefts) >= max(need.least_input for _, need in rows):
        options.insert(0, f"shorten the input to {min(lefts)} tokens")
    again = fix([(replace(room, is_settled=False), need) for room, need in rows])
    return ", or ".join([*options, f"tune a prompt with {again}"])


def _fits(room: Room, need: Need) -> bool:
    left = room.for_input(need)
    most = room.answer_context
    answered = not room.apart or most is None or max(room.answer(need), room.answer_soft) <= most
    return (left is None or need.input <= left) and answered


def _shorter_inputs(rows: Sequence[tuple[Room, Need]]) -> str:
    limits = []
    for room, need in rows:
        left = room.for_input(need)
        if (
            left is None
            or left < need.least_input
            or not _fits(room, replace(need, input=min(need.input, left)))
        ):
            return ""
        limits.append(left)
    return f"data.max_input_tokens={min(limits)} cuts each input to {min(limits)} tokens"


def _fewer_new(rows: Sequence[tuple[Room, Need]]) -> str:
    """Return the largest smaller `task.max_new_tokens` that makes all rows fit and holds their targets."""
    most = []
    for room, need in rows:
        bounds = [room.new_tokens]
        if room.apart and room.answer_context is not None:
            bounds.append(room.answer_context)
        if not room.apart and room.context is not None:
            bounds.append(room.context - room.soft - need.input)
        most.append(min(bounds))
    number = min(most)
    if number < max(1, *(need.target for _, need in rows)) or number >= rows[0][0].new_tokens:
        return ""
    changed = [(replace(room, new_tokens=number), need) for room, need in rows]
    return f"task.max_new_tokens={number}" if all(_fits(*row) for row in changed) else ""


def _fewer_soft(rows: Sequence[tuple[Room, Need]]) -> str:
    """Return the largest smaller `method.length` that makes all rows fit."""
    first = rows[0][0]
    over = [need.input - left for room, need in rows if (left := room.for_input(need)) is not None]
    places = first.soft // first.length if first.length else 0  # soft tokens of a length in one sequence
    number = first.length - -(-max([0, *over]) // places) if places else 0
    if not 1 <= number < first.length:
        return ""
    changed = [(replace(room, soft=places * number), need) for room, need in rows]
    return f"method.length={number}" if all(_fits(*row) for row in changed) else ""


def _several(rows: Sequence[tuple[Room, Need]]) -> str:
    """Return the first of some sets of changes, from mild to strong, that makes all rows fit."""
    room, longest = rows[0][0], max(need.target for _, need in rows)
    context = (room.answer_context if room.apart else room.context) or 2
    half = max(1, context if room.apart else context // 2)
    for length, target in (
        (None, longest),
        (1, longest),
        (None, half),
        (1, half),
        (1, max(1, half // 4)),
        (1, 1),
    ):
        if target < longest and not room.new_tokens:
            break  # a label or a choice is not cut
        if text := _changes(rows, length, target, target < longest):
            return text
    return "shorter texts: system text, labels or choices; or a model with a longer context"


def _changes(rows: Sequence[tuple[Room, Need]], length: int | None, target: int, is_cut: bool) -> str:
    """Return these changes and a limit of the inputs as the command line takes them; "" where they do not
    suffice.
    """
    first = rows[0][0]
    changes = []
    if length is not None and first.length > length and (first.soft or first.answer_soft):
        changes.append(f"method.length={length}")
    else:
        length = first.length
    if is_cut:
        changes.append(f"data.max_target_tokens={target}")
    new = min(first.new_tokens, max(1, target))
    if new < first.new_tokens:
        changes.append(f"task.max_new_tokens={new}")
    limits = []
    for room, need in rows:
        places = [part // room.length if room.length else 0 for part in (room.soft, room.answer_soft)]
        soft, answer_soft = (count * length for count in places)
        room = replace(room, soft=soft, answer_soft=answer_soft, new_tokens=new)
        need = replace(need, target=min(need.target, target))
        left = room.for_input(need)
        least = min(need.least_input, need.input)
        if not _fits(room, replace(need, input=least)):
            return ""
        limits.append(need.input if left is None else min(left, need.input))
    if any(limit < need.input for limit, (_, need) in zip(limits, rows, strict=True)):
        changes.append(f"data.max_input_tokens={min(limits)}")
    return " ".join(changes)
