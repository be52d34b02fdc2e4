"""What a folder of artifacts holds, looked at before a server of it starts: the base that they ask for, which
of them it will serve, and which not and why.

Manifests alone are read, of the first `LOOKED_AT` artifacts: a start takes no longer with a hundred thousand.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .._system.paths import expanded
from ..artifacts.artifact import MANIFEST
from ..lm.base import LanguageModel
from ..lm.loading import ALIASES, fingerprint
from ..lm.locate import looks_local
from .contents import Content, names_of, read
from .names import TRIAL, UNREADABLE, Names

SHOWN, LOOKED_AT = 10, 1000


@dataclass(frozen=True)
class Survey:
    """What was found in a folder; `more` where it holds more artifacts than were looked at."""

    folder: Path
    found: tuple[tuple[str, Content], ...]
    skipped: tuple[tuple[str, str], ...]  # what has no name here, and why
    more: bool
    trials: int = field(default=0)  # of comparisons, that are not served

    @property
    def base(self) -> str | None:
        """The base that most of its artifacts name; None where there are none."""
        counts = Counter(
            content.base for _, content in sorted(self.found, key=lambda one: one[0]) if content.base
        )
        return counts.most_common(1)[0][0] if counts else None

    def said(self, lm: LanguageModel) -> list[str]:
        """What a server of this base should say at its start, as sentences."""
        weights = fingerprint(lm)["weights"]
        problems = [(name, content.problem_for(weights)) for name, content in self.found]
        names = [
            one
            for (name, content), (_, problem) in zip(self.found, problems, strict=True)
            if problem is None
            for one in names_of(name, content.prompts)
        ]
        unfit = [f"{name} ({problem})" for name, problem in problems if problem]
        said = [self._count(names, bool(unfit))]
        if unfit:
            head = f"{len(unfit)} of {len(problems)} artifacts cannot be served by {lm.name}"
            said.append(f"{head}: {_listed(unfit)}")
        if self.skipped:
            shown = [f"{_shown(name)} ({why})" for name, why in self.skipped]
            folders = "1 folder" if len(shown) == 1 else f"{len(shown)} folders"
            said.append(f"{folders} not served: {_listed(shown)}")
        if self.trials:
            said.append(f"trials of comparisons that are not served: {self.trials}; --trials serves them too")
        return said

    def _count(self, names: Sequence[str], others: bool) -> str:
        if self.more:
            return f"more than {LOOKED_AT} artifacts in {self.folder}: {_listed(names, more=True)}"
        if not names:
            which = "that can be served" if others or self.skipped or self.trials else "yet"
            return f"no tuned prompts in {self.folder} {which}; what comes there is served at once"
        return f"{len(names)} {'prompt' if len(names) == 1 else 'prompts'} in {self.folder}: {_listed(names)}"


def _shown(name: str) -> str:
    return f"'{name}'" if name.isprintable() else repr(name)


def called(model: str) -> str:
    """What clients call a base: of a path the last part (of `.` the folder's name), else what was given."""
    path = expanded(model)
    local = model not in ALIASES and (looks_local(model) or path.endswith(".gguf") or os.path.lexists(path))
    return os.path.basename(os.path.abspath(path)) or "model" if local else model


def survey(folder: Path, *, trials: bool = False) -> Survey:
    """Look at a folder: `trials` as `Names` has it."""
    skipped: list[tuple[str, str]] = []

    def note(name: str, path: Path, why: str) -> None:
        if why in (TRIAL, UNREADABLE) or _holds_one(path):
            skipped.append((name, why))

    walked = Names(folder, trials=trials).walk(note)
    found = tuple((name, read(path)) for name, path in itertools.islice(walked, LOOKED_AT))
    more = next(walked, None) is not None
    named = tuple((name, why) for name, why in skipped if why != TRIAL)
    return Survey(folder, found, named, more, len(skipped) - len(named))


def _holds_one(path: Path) -> bool:
    """Whether a folder is an artifact, or one lies among the first folders in it; of a hidden one, itself."""
    folders = [path]
    for folder in folders:  # grows
        if os.path.lexists(folder / MANIFEST):
            return True
        if len(folders) < LOOKED_AT and not folder.name.startswith("."):
            with contextlib.suppress(OSError), os.scandir(folder) as inner:
                folders += [folder / one.name for one in inner if one.is_dir(follow_symlinks=False)]
    return False


def _listed(names: Sequence[str], *, more: bool = False) -> str:
    left = len(names) - SHOWN
    rest = ", …" if more else f", … {left} more" if left > 0 else ""
    return ", ".join(names[:SHOWN]) + rest
