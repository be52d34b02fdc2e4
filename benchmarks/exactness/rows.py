"""What a case leaves: one number of each side, or the error that was raised instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from softprompt.errors import SoftPromptError

REFUSED = "refused"
ROUNDING = 1e-5  # of the reference's size, in float32

Found = float | str  # a number, or the first line of the error


@dataclass(frozen=True, slots=True)
class Row:
    """One case. `allowed` is the largest number that is right, or `REFUSED` where a refusal is."""

    case: str
    measured: str
    peft: Found
    ours: Found
    allowed: float | str

    @property
    def holds(self) -> bool:
        """Whether our side is what it should be."""
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


def difference(found: Tensor, reference: Tensor) -> float:
    """Largest difference of a number, as a share of the reference's largest."""
    return ((found - reference).abs().max() / reference.abs().max()).item()


def _theirs(run: Callable[[], float]) -> Found:
    try:
        return run()
    except Exception as error:  # whatever it raises is what a user would see
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _ours(run: Callable[[], float]) -> Found:
    try:
        return run()
    except SoftPromptError as error:
        return f"{REFUSED}: {error.why or error.what}"
