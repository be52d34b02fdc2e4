"""A folder of artifacts is surveyed before a server starts: which base they need, and which can be served.

Only manifests are read, of the first `LOOKED_AT` artifacts, so a hundred thousand delay a start no further.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._system.paths import expanded
from ..artifacts.artifact import MANIFEST
from ..lm.base import LanguageModel
from ..lm.loading import ALIASES
from ..lm.locate import looks_local
from .contents import Content, names_of, read
from .names import TRIAL, UNREADABLE, Names
from .served_base import ServedBase

SHOWN, LOOKED_AT = 10, 1000


@dataclass(frozen=True)
class Survey:
    """The artifacts of a folder are listed here; `more` means that it has more of them than were read."""

    folder: Path
    artifacts: tuple[tuple[str, Content], ...]
    skipped: tuple[tuple[str, str], ...]  # folders that have no name here, and why
    more: bool
    trials: int = field(default=0)  # trials of comparisons, which are not served

    @property
    def base(self) -> str | None:
        """The base that most of its artifacts name is returned; None where there are none."""
        return self._most_common(lambda content: content.base)

    def record_of(self, model: str) -> dict[str, Any]:
        """Return how the artifacts with a base of that name say that it is loaded: see `lm.load_saved`."""
        loading = self._most_common(lambda content: content.loading if content.base == model else None)
        return {"name": model, **json.loads(loading or "{}")}

    def _most_common(self, part: Callable[[Content], str | None]) -> str | None:
        values = (part(content) for _, content in sorted(self.artifacts, key=lambda pair: pair[0]))
        counts = Counter(value for value in values if value)
        return counts.most_common(1)[0][0] if counts else None

    def notes(self, lm: LanguageModel) -> list[str]:
        base = ServedBase(lm)
        problems = [(name, content.problem_for(base)) for name, content in self.artifacts]
        names = [
            prompt
            for (name, content), (_, problem) in zip(self.artifacts, problems, strict=True)
            if problem is None
            for prompt in names_of(name, content.prompts)
        ]
        unfit = [f"{name} ({problem})" for name, problem in problems if problem]
        notes = [self._count(names, bool(unfit))]
        if unfit:
            head = f"{len(unfit)} of {len(problems)} artifacts cannot be served by {lm.name}"
            notes.append(f"{head}: {_listed(unfit)}")
        if self.skipped:
            shown = [f"{_shown(name)} ({why})" for name, why in self.skipped]
            folders = "1 folder" if len(shown) == 1 else f"{len(shown)} folders"
            notes.append(f"{folders} not served: {_listed(shown)}")
        if self.trials:
            notes.append(f"trials of comparisons not served: {self.trials}; --trials serves them too")
        return notes

    def _count(self, names: Sequence[str], others: bool) -> str:
        if self.more:
            return f"more than {LOOKED_AT} artifacts in {self.folder}: {_listed(names, more=True)}"
        if not names:
            which = "that can be served" if others or self.skipped or self.trials else "yet"
            return f"no tuned prompts in {self.folder} {which}; new ones are served at once"
        return f"{len(names)} {'prompt' if len(names) == 1 else 'prompts'} in {self.folder}: {_listed(names)}"


def _shown(name: str) -> str:
    return f"'{name}'" if name.isprintable() else repr(name)


def called(model: str) -> str:
    """Return the name of a base for clients: a path's last part (for `.` the folder's name), or a hub id."""
    path = expanded(model)
    local = model not in ALIASES and (looks_local(model) or path.endswith(".gguf") or os.path.lexists(path))
    return os.path.basename(os.path.abspath(path)) or "model" if local else model


def survey(folder: Path, *, trials: bool = False) -> Survey:
    """Read the manifests of a folder; `trials` is an argument of `Names`."""
    skipped: list[tuple[str, str]] = []

    def note(name: str, path: Path, why: str) -> None:
        if why in (TRIAL, UNREADABLE) or _holds_one(path):
            skipped.append((name, why))

    walked = Names(folder, trials=trials).walk(note)
    artifacts = tuple((name, read(path)) for name, path in itertools.islice(walked, LOOKED_AT))
    more = next(walked, None) is not None
    named = tuple((name, why) for name, why in skipped if why != TRIAL)
    return Survey(folder, artifacts, named, more, len(skipped) - len(named))


def _holds_one(path: Path) -> bool:
    """Return whether a folder is an artifact, or contains one; a hidden folder is not entered."""
    folders = [path]
    for folder in folders:  # grows
        if os.path.lexists(folder / MANIFEST):
            return True
        if len(folders) < LOOKED_AT and not folder.name.startswith("."):
            with contextlib.suppress(OSError), os.scandir(folder) as inner:
                folders += [folder / entry.name for entry in inner if entry.is_dir(follow_symlinks=False)]
    return False


def _listed(names: Sequence[str], *, more: bool = False) -> str:
    left = len(names) - SHOWN
    rest = ", …" if more else f", … {left} more" if left > 0 else ""
    return ", ".join(names[:SHOWN]) + rest
