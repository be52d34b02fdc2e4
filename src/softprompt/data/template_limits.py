"""The work of a template on one row is limited, so that it always ends, on any thread.

Steps are turns of loops, calls, filters and operators, and the items that these go through; characters are
all that is written or built on the way. A result that would be too large is refused before it is made.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

MAX_SOURCE = 100_000  # characters of a template
MAX_STEPS = 200_000
MAX_CHARACTERS = 20_000_000
MAX_WIDTH = 10_000  # of one formatted value
MAX_BITS = 14_000  # of a number: some 4,200 digits
MAX_MARKUP = 200_000  # characters given to a filter that searches markup

_PLACE = re.compile(r"%(?:\(.*?\))?[#0\- +]*(\*|\d+)?(?:\.(\*|\d+))?")


class LimitError(Exception):
    """A template exceeded a limit, which the text names."""


class Budget:
    """A budget holds the steps and characters that are left for one row."""

    def __init__(self) -> None:
        self.steps, self.characters = MAX_STEPS, MAX_CHARACTERS

    def step(self, count: int = 1) -> None:
        self.steps -= count
        if self.steps < 0:
            raise LimitError(
                f"it takes more than {MAX_STEPS:,} steps for one row (loops' turns, calls, filters, items)"
            )

    def write(self, count: int) -> None:
        self.characters -= count
        if self.characters < 0:
            raise LimitError(f"it makes more than {MAX_CHARACTERS:,} characters for one row")


_BUDGET: ContextVar[Budget | None] = ContextVar("template_budget", default=None)


@contextlib.contextmanager
def spending() -> Iterator[None]:
    """Open a fresh budget for the work inside."""
    token = _BUDGET.set(Budget())
    try:
        yield
    finally:
        _BUDGET.reset(token)


def step(count: int = 1) -> None:
    """Count steps."""
    if (budget := _BUDGET.get()) is not None:
        budget.step(count)


def write(count: int) -> None:
    """Count characters that are about to be made."""
    if (budget := _BUDGET.get()) is not None:
        budget.write(count)


def measure(value: Any) -> None:
    """Count a value that is read: its items, and a quarter of its characters (writing costs more)."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, (str, bytes)):
            write(len(item) // 4)
        elif isinstance(item, Mapping):
            step(len(item))
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, (list, tuple)):
            step(len(item))
            waiting += item


def compared(value: Any) -> Any:
    """Count and return a value that is compared or hashed: lists of lists cost the items that they hold."""
    if isinstance(value, (str, bytes)):
        write(len(value) // 32)
    elif isinstance(value, (list, tuple, Mapping)):
        items = value.values() if isinstance(value, Mapping) else value
        if any(isinstance(item, (list, tuple, Mapping)) for item in items):
            measure(value)
    return value


def counted(items: Iterable[Any], written: int) -> Iterator[Any]:
    """Yield the items of a loop, and count each turn with the characters that it writes at least."""
    for item in items:
        step()
        write(written)
        yield item


def binary(operator: str, left: Any, right: Any) -> None:
    """Refuse an operation whose result would be too large."""
    step()
    if operator == "%" and isinstance(left, (str, bytes)):
        formatting(str(left), right)
    elif operator == "+" and hasattr(left, "__len__") and hasattr(right, "__len__"):
        write(len(left) + len(right))
    elif operator == "*":
        for many, times in ((left, right), (right, left)):  # a text or list, repeated
            if hasattr(many, "__len__") and isinstance(times, int):
                write(len(many) * max(0, times))
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length()
        size = bits * max(0, right) if operator == "**" else bits + right.bit_length()
        if size > MAX_BITS:
            raise LimitError("it computes a number of more than 4,200 digits")


def formatting(text: str, values: Any) -> None:
    """Refuse `%` formatting to a great width."""
    for width in (part for match in _PLACE.finditer(text) for part in match.groups() if part):
        if width == "*" or int(width[:9]) > MAX_WIDTH:
            raise LimitError(f"it formats a value to a width of more than {MAX_WIDTH:,}")
    write(len(text))
    measure(values)


def spec(text: str) -> None:
    """Refuse a format specification of a great width."""
    if any(len(number) > 9 or int(number) > MAX_WIDTH for number in re.findall(r"\d+", text)):
        raise LimitError(f"it formats a value to a width of more than {MAX_WIDTH:,}")


def method(owner: Any, name: str, arguments: tuple[Any, ...]) -> None:
    """Refuse a method of a text or number whose result would be too large."""
    first = arguments[0] if arguments else None
    if name == "to_bytes":
        raise LimitError("it asks for the bytes of a number")
    if not isinstance(owner, (str, bytes)):
        return
    write(len(owner) // 4)
    if name in ("center", "ljust", "rjust", "zfill") and isinstance(first, int):
        write(max(0, first))
    elif name == "expandtabs":
        write(str(owner).count("\t") * (first if isinstance(first, int) else 8))
    elif name == "replace" and len(arguments) > 1:
        replacing(owner, first, arguments[1])
    elif name == "translate" and isinstance(first, Mapping):
        write(len(owner) * max((len(str(value)) for value in first.values()), default=1))
    elif name == "join" and isinstance(first, (list, tuple)):
        write(len(owner) * len(first))


def replacing(text: Any, old: Any, new: Any) -> None:
    """Refuse a replacement whose result would be too large."""
    if isinstance(text, str) and isinstance(old, str) and isinstance(new, str):
        write(len(new) * text.count(old))
