"""`SoftPromptError` is the one error that a user may see; `unknown` makes one with "did you mean".

Every limit of the library is an error that names the value, the reason and what works instead.
`softprompt.cli` prints them without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from contextvars import ContextVar

#: True where errors are read by the user of a shell, False where by a caller in Python.
IN_SHELL: ContextVar[bool] = ContextVar("in_shell", default=False)
#: Rewrites the names of settings in messages as the caller writes them (see `methods.keyword_arguments`).
WORDING: ContextVar[Callable[[str], str]] = ContextVar("wording", default=str)


class SoftPromptError(Exception):
    """A mistake that the user can correct: `what` happened, `why`, and how to `fix` it."""

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)

    @property
    def line(self) -> str:
        """Join the parts into one line of sentences, for logs and for answers over HTTP."""
        parts = (self.what, self.why and f"Why: {self.why}", self.fix and f"Fix: {self.fix}")
        return " ".join((". ".join(part for part in parts if part) + ".").split())


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `name`, or None where nothing is close."""
    if len(name) > 200:  # no known name is as long, and comparing it would take long
        return None
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def unknown(kind: str, name: str, known: Iterable[str], fix: str = "") -> SoftPromptError:
    """Make the error for a name outside `known`, with the nearest one and the whole list."""
    names = sorted(known)
    guess = nearest(name, names)
    listing = ", ".join(names) if names else "none"
    return SoftPromptError(
        f"unknown {kind} '{name}'" + (f"; did you mean '{guess}'?" if guess else ""),
        why=f"known: {listing}",
        fix=fix,
    )
