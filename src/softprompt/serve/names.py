"""Names of prompts and the folders they stand for: a name is an artifact's path under one folder.

What `walk` lists, `find` finds, and nothing else. Where the folder is itself an artifact, it is the only one,
and has the folder's name. Not listed: what has no name that a request could hold, what lies in an artifact or
behind a link to a folder, what lies outside, and the trials of comparisons unless they are asked for. Where
the folder that is served is given by a link, it is wherever the link leads when a name is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..artifacts.manifest import MANIFEST
from ..artifacts.prompt_names import is_trial, nameable, one_form, why_not
from ..errors import SoftPromptError
from .request import UnknownPrompt

TRIAL = "a trial of a comparison"
UNREADABLE = "the folder cannot be read"
Skipped = Callable[[str, Path, str], None]  # told of a folder that has no name here: path, folder, why


@dataclass(frozen=True, slots=True)
class Entry:
    """An artifact in the folder, not opened."""

    name: str
    path: Path
    modified: float  # seconds since 1970, of its manifest
    problem: str | None = None  # why it is not served, as far as that is known
    prompts: tuple[str, ...] = ()  # names of those in it, or the one that was asked for
    models: tuple[str, ...] = ()  # the names by which its prompts are asked for; of a listing
    served: bool = True  # False where a request for it is known to fail


@final
class Names:
    """The artifacts under a folder, by name. Nothing is indexed, and nothing outside has a name."""

    def __init__(self, folder: str | Path, *, trials: bool = False) -> None:
        self._given, self.trials = Path(folder).absolute(), trials
        self.own = os.path.basename(os.path.abspath(folder))  # as it was given: a link may name a version

    @property
    def folder(self) -> Path:
        """Where the folder is now."""
        return Path(os.path.realpath(self._given))

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
        root = self.folder
        if not _is_one(root):
            yield from self._walk(root, skipped)
        elif nameable(self.own):
            yield self.own, root
        else:
            skipped(self.own, root, why_not(self.own))

    def _inside(self, name: str) -> Path | None:
        """The artifact's folder; None where there is none that `walk` lists."""
        parts, root = name.split("/"), self.folder
        if not all(map(nameable, parts)):
            return None
        try:
            if _is_one(root):
                return root if one_form(name) == one_form(self.own) else None
            path = root
            for part in parts[:-1]:
                path = _below(path, part)
                if path.is_symlink() or _is_marked(path):
                    return None
            last = _below(path, parts[-1])
            if path != root and self._hides(path, last.name):
                return None
            path = last.resolve()
            inside = path.is_relative_to(root) and _is_marked(path)
        except (OSError, ValueError, RuntimeError):  # too long a name, a link that leads to itself
            return None
        return path if inside else None

    def _hides(self, folder: Path, part: str) -> bool:
        """Whether it is a trial that a comparison recorded, in a `trials` folder below the one served."""
        return not self.trials and is_trial(folder, part)

    def _walk(self, root: Path, skipped: Skipped) -> Iterator[tuple[str, Path]]:
        open_folders = [_folders_in(root, "", skipped)]
        while open_folders:
            found = next(open_folders[-1], None)
            if found is None:
                open_folders.pop()
                continue
            name, path = found
            if not nameable(path.name):
                skipped(name, path, why_not(path.name))
            elif path.is_symlink():  # of use as a name for the version that is served; never walked into
                target = self._inside(name)
                if target is not None:
                    yield name, target
                elif os.path.isdir(path):
                    skipped(name, path, _why_not_linked(path, root))
            elif not _is_marked(path):
                open_folders.append(_folders_in(path, name + "/", skipped))
            elif path.parent != root and self._hides(path.parent, path.name):
                skipped(name, path, TRIAL)
            else:
                yield name, path


def _folders_in(folder: Path, prefix: str, skipped: Skipped) -> Iterator[tuple[str, Path]]:
    """Folders, and links, in the order of their names."""
    try:
        with os.scandir(folder) as found:
            names = sorted(entry.name for entry in found if entry.is_symlink() or entry.is_dir())
    except FileNotFoundError:  # removed meanwhile
        return
    except OSError:
        skipped(prefix.removesuffix("/"), folder, UNREADABLE)
        return
    for name in names:
        yield prefix + name, folder / name


def _is_one(root: Path) -> bool:
    """Whether the folder that is served is itself a tuned prompt."""
    return os.path.isfile(root / MANIFEST)


def _is_marked(folder: Path) -> bool:
    """Whether something in a folder, of whatever kind, is called as a manifest. Then it is a tuned prompt, if
    only a damaged one: to take it for a plain folder would hide that."""
    return os.path.lexists(folder / MANIFEST)


def check_base(holds: Callable[[str], bool], base: str) -> None:
    """Raises SoftPromptError where a prompt has the base's name: a request by it would mean two things."""
    if holds(base):
        raise SoftPromptError(
            f"'{base}' is the base model's name and a prompt's",
            why="a request names its prompt, or the base, by the name alone",
            fix=f"rename the prompt's folder '{base}'",
        )


def _why_not_linked(path: Path, folder: Path) -> str:
    if not Path(os.path.realpath(path)).is_relative_to(folder):
        return (
            f"it is a link that leads outside {folder}: copy what it leads to, or serve a folder above both"
        )
    return "it is a link to a folder that is no tuned prompt: such links are not followed"


def _below(folder: Path, part: str) -> Path:
    """The folder of this name, or else of one that only writes its accents otherwise."""
    path = folder / part
    if part.isascii() or os.path.lexists(path):
        return path
    alike = sorted(name for name in os.listdir(folder) if one_form(name) == one_form(part))
    return folder / alike[0] if alike else path
