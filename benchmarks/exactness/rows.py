"""A case gives a number for each side, or the error that was raised instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from softprompt.errors import SoftPromptError

REFUSED = "refused"
ROUNDING = 1e-5  # of the reference's size, in float32

Outcome = float | str  # a number, or the first line of the error


@dataclass(frozen=True, slots=True)
class Row:
    """A row has a case and its outcomes; `allowed` is the largest number that is right, or `REFUSED`."""

    case: str
    measured: str
    peft: Outcome
    ours: Outcome
    allowed: float | str

    @property
    def holds(self) -> bool:
        """True if softprompt's side is as it should be."""
        if isinstance(self.ours, str) or isinstance(self.allowed, str):
            return isinstance(self.ours, str) and self.ours.split(":")[0] == self.allowed
        return self.ours <= self.allowed


def compare(
    case: str,
    measured: str,
    *,
    peft: Callable[[], float],
    ours: Callable[[], float],
    allowed: float | str = ROUNDING,
) -> Row:
    """Run both sides; an error of PEFT's, and a refusal of ours, is a result."""
    return Row(case, measured, _theirs(peft), _ours(ours), allowed)


def difference(result: Tensor, reference: Tensor) -> float:
    """Return the largest difference of a number, as a share of the reference's largest."""
    return ((result - reference).abs().max() / reference.abs().max()).item()


def _theirs(run: Callable[[], float]) -> Outcome:
    try:
        return run()
    except Exception as error:  # a user would see any of them
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _ours(run: Callable[[], float]) -> Outcome:
    try:
        return run()
    except SoftPromptError as error:
        return f"{REFUSED}: {error.why or error.what}"
