"""Names of prompts and the folders they stand for: a name is an artifact's path under one folder.

What `walk` lists, `find` finds, and nothing else. Where the folder is itself an artifact, it is the only one,
and has the folder's name. Not listed: what has no name that a request could hold, what lies in an artifact or
behind a link to a folder, what lies outside, and the trials of comparisons unless they are asked for.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

from ..artifact import MANIFEST
from ..errors import SoftPromptError
from .request import UnknownPrompt

TRIAL = "a trial of a comparison"
Skipped = Callable[[str, Path, str], None]  # told of a folder that has no name here: path, folder, why


@final
class Names:
    """The artifacts under a folder, by name. Nothing is indexed, and nothing outside has a name."""

    def __init__(self, folder: str | Path, *, trials: bool = False) -> None:
        self.folder, self.trials = Path(folder).resolve(), trials
        self.own = os.path.basename(os.path.abspath(folder))  # as it was given: a link may name a version

    def find(self, name: str) -> tuple[Path, str | None]:
        """The folder of a name, and the prompt in it if one is named. Raises UnknownPrompt."""
        whole = self._inside(name)
        if whole is not None:
            return whole, None
        folder, colon, prompt = name.partition(":")
        path = self._inside(folder) if colon else None
        if path is None:
            raise UnknownPrompt(f"no prompt '{name}'", fix="ask for a prompt that is listed")
        return path, prompt

    def holds(self, name: str) -> bool:
        """Whether a prompt, or an artifact of several, has this name."""
        try:
            self.find(name)
        except UnknownPrompt:
            return False
        return True

    def walk(self, skipped: Skipped = lambda name, path, why: None) -> Iterator[tuple[str, Path]]:
        """Every name and its folder, as folders are walked; those of one folder in the order of names."""
        if not self._is_one():
            yield from self._walk(self.folder, "", skipped)
        elif _nameable(self.own):
            yield self.own, self.folder
        else:
            skipped(self.own, self.folder, why_not(self.own))

    def _is_one(self) -> bool:
        return (self.folder / MANIFEST).is_file()

    def _inside(self, name: str) -> Path | None:
        """The artifact's folder; None where there is none that `walk` lists."""
        parts = name.split("/")
        if not all(map(_nameable, parts)):
            return None
        try:
            if self._is_one():
                return self.folder if one_form(name) == one_form(self.own) else None
            path = self.folder
            for part in parts[:-1]:
                path = _below(path, part)
                if path.is_symlink() or (path / MANIFEST).is_file():
                    return None
            last = _below(path, parts[-1])
            if path != self.folder and self._hides(path, last.name):
                return None
            path = last.resolve()
            inside = path.is_relative_to(self.folder) and (path / MANIFEST).is_file()
        except (OSError, ValueError, RuntimeError):  # too long a name, a link that leads to itself
            return None
        return path if inside else None

    def _hides(self, folder: Path, part: str) -> bool:
        """Whether it is a trial that a comparison recorded, in a `trials` folder below the one served."""
        if self.trials or folder.name != "trials":
            return False
        return (folder / f"{part}.json").is_file()

    def _walk(self, folder: Path, prefix: str, skipped: Skipped) -> Iterator[tuple[str, Path]]:
        try:
            with os.scandir(folder) as found:
                inner = sorted((e for e in found if e.is_symlink() or e.is_dir()), key=lambda e: e.name)
        except OSError:  # removed, or not ours to read
            return
        for item in inner:
            name, path = prefix + item.name, folder / item.name
            if not _nameable(item.name):
                skipped(name, path, why_not(item.name))
            elif item.is_symlink():  # of use as a name for the version that is served; never walked into
                target = self._inside(name)
                if target is not None:
                    yield name, target
                elif path.is_dir():
                    skipped(name, path, _why_not_linked(path, self.folder))
            elif not (path / MANIFEST).is_file():
                yield from self._walk(path, name + "/", skipped)
            elif prefix and self._hides(folder, item.name):
                skipped(name, path, TRIAL)
            else:
                yield name, path


def check_base(holds: Callable[[str], bool], base: str) -> None:
    """Raises SoftPromptError where a prompt has the base's name: a request by it would mean two things."""
    if holds(base):
        raise SoftPromptError(
            f"'{base}' is the base model's name and a prompt's",
            why="a request names its prompt, or the base, by the name alone",
            fix=f"rename the prompt's folder '{base}'",
        )


def why_not(part: str) -> str:
    """Why a folder of this name cannot be part of a prompt's name."""
    if part.startswith("."):
        return "folders whose names begin with a dot are hidden"
    if ":" in part:
        return "a colon in a name parts a folder from a prompt in it: rename the folder"
    if "\\" in part:
        return "a backslash cannot be part of a name: rename the folder"
    return "a character of its name cannot be printed: rename the folder"


def _why_not_linked(path: Path, folder: Path) -> str:
    if not path.resolve().is_relative_to(folder):
        return (
            f"it is a link that leads outside {folder}: copy what it leads to, or serve a folder above both"
        )
    return "it is a link to a folder that is no tuned prompt: such links are not followed"


def one_form(text: str) -> str:
    """Text in which a letter with an accent is one character: some systems write names with two."""
    return unicodedata.normalize("NFC", text)


def _below(folder: Path, part: str) -> Path:
    """The folder of this name, or else of one that only writes its accents otherwise."""
    path = folder / part
    if part.isascii() or os.path.lexists(path):
        return path
    alike = sorted(name for name in os.listdir(folder) if one_form(name) == one_form(part))
    return folder / alike[0] if alike else path


def _nameable(part: str) -> bool:
    """Whether a folder may be part of a name: a colon parts it from a prompt, and JSON holds UTF-8 alone."""
    return bool(part) and not part.startswith(".") and part.isprintable() and not {":", "\\"} & set(part)
