"""Prompts reach a model whose caller passes token ids alone, and runs all rows of a batch in order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import final

from torch import Tensor

from ..errors import SoftPromptError


@final
class _Pass:
    """A pass runs each row once, in one call or in several that follow each other."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers, self.taken = numbers, 0

    def take(self, rows: int) -> Tensor:
        """Return the numbers of the prompts [rows] of the next rows."""
        self.taken += rows
        if self.taken > len(self.numbers):
            raise _other_rows(self.taken, len(self.numbers))
        return self.numbers[self.taken - rows : self.taken]


_PASS: ContextVar[_Pass | None] = ContextVar("softprompt_row_prompts", default=None)


@contextlib.contextmanager
def in_order(numbers: Tensor | None, rows: int) -> Iterator[None]:
    """Give the calls inside, which run `rows` rows in order, the prompts `numbers` [rows]; None: nothing.

    Raises SoftPromptError where the calls run other rows than these.
    """
    if numbers is None:
        yield
        return
    if len(numbers) != rows:
        raise _other_rows(rows, len(numbers))
    current = _Pass(numbers)
    token = _PASS.set(current)
    try:
        yield
    finally:
        _PASS.reset(token)
    if current.taken not in (0, rows):  # a reference takes none
        raise _other_rows(current.taken, rows)


def of_next(rows: int) -> Tensor | None:
    """Return the prompts [rows] of the rows that a call runs now; None where nothing says them."""
    current = _PASS.get()
    return None if current is None else current.take(rows)


def _other_rows(rows: int, known: int) -> SoftPromptError:
    return SoftPromptError(
        f"a table of prompts cannot be trained here: the trainer runs {rows} rows, and has {known}",
        why="it is not known which prompt each of them uses, as with tools, which continue some rows alone",
        fix='leave tools and rollout functions out, or attach one prompt: prompts=["joke"]',
    )
