"""A prompt's name is its artifact's path under one folder.

`find` finds exactly what `walk` lists. Where the folder is itself an artifact, it is the only one, and has
the folder's name. Not listed are artifacts whose names no request can contain, those inside another artifact,
behind a link to a folder, or outside, and trials of comparisons unless they are wanted. A link to the served
folder is followed at each request.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..artifacts.hub.download import folder_of
from ..artifacts.manifest import MANIFEST
from ..artifacts.prompt_names import is_trial, nameable, one_form, why_not
from ..errors import SoftPromptError
from .request import UnknownPrompt

TRIAL = "a trial of a comparison"
UNREADABLE = "the folder cannot be read"
Skipped = Callable[[str, Path, str], None]  # called for a folder that has no name here: name, folder, why


@dataclass(frozen=True, slots=True)
class Entry:
    """An artifact that is listed, and not opened."""

    name: str
    path: Path
    modified: float  # seconds since 1970, of its manifest
    problem: str | None = None  # why it is not served, where that is known
    prompts: tuple[str, ...] = ()  # names of its prompts, or the one that was requested
    models: tuple[str, ...] = ()  # the names by which clients use its prompts, in a listing
    served: bool = True  # False where a request for it is known to fail


@final
class Names:
    """Maps names to artifacts under a folder. Nothing is indexed, and nothing outside has a name.

    An artifact `hf:ID@REVISION` is fetched once, and its name is the id.
    """

    def __init__(self, folder: str | Path, *, trials: bool = False) -> None:
        fetched, reference = folder_of(folder)
        self._given, self.trials = fetched.absolute(), trials
        # a link keeps its own name
        self.root_name = reference.id if reference else os.path.basename(os.path.abspath(fetched))

    @property
    def folder(self) -> Path:
        return Path(os.path.realpath(self._given))

    def find(self, name: str) -> tuple[Path, str | None]:
        """Return the folder of a name, and the prompt in it if one is named. Raises UnknownPrompt."""
        whole = self._inside(name)
        if whole is not None:
            return whole, None
        folder, colon, prompt = name.partition(":")
        path = self._inside(folder) if colon else None
        if path is None:
            raise UnknownPrompt(f"no prompt '{name}'", fix="ask for a prompt that is listed")
        return path, prompt

    def holds(self, name: str) -> bool:
        try:
            self.find(name)
        except UnknownPrompt:
            return False
        return True

    def walk(self, skipped: Skipped = lambda name, path, why: None) -> Iterator[tuple[str, Path]]:
        """Yield every name and its folder, as folders are walked; the names of one folder are sorted."""
        root = self.folder
        if not _is_one(root):
            yield from self._walk(root, skipped)
        elif nameable(self.root_name):
            yield self.root_name, root
        else:
            skipped(self.root_name, root, why_not(self.root_name))

    def _inside(self, name: str) -> Path | None:
        """Return the artifact's folder; None where `walk` lists none."""
        parts, root = name.split("/"), self.folder
        if not all(map(nameable, parts)):
            return None
        try:
            if _is_one(root):
                return root if one_form(name) == one_form(self.root_name) else None
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
        except (OSError, ValueError, RuntimeError):  # the name is too long, or a link leads to itself
            return None
        return path if inside else None

    def _hides(self, folder: Path, part: str) -> bool:
        """Return whether it is a trial of a comparison, in a `trials` folder below the one served."""
        return not self.trials and is_trial(folder, part)

    def _walk(self, root: Path, skipped: Skipped) -> Iterator[tuple[str, Path]]:
        open_folders = [_folders_in(root, "", skipped)]
        while open_folders:
            entry = next(open_folders[-1], None)
            if entry is None:
                open_folders.pop()
                continue
            name, path = entry
            if not nameable(path.name):
                skipped(name, path, why_not(path.name))
            elif path.is_symlink():  # it may name the version to serve, but is never walked into
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
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_symlink() or entry.is_dir())
    except FileNotFoundError:  # removed meanwhile
        return
    except OSError:
        skipped(prefix.removesuffix("/"), folder, UNREADABLE)
        return
    for name in names:
        yield prefix + name, folder / name


def _is_one(root: Path) -> bool:
    return os.path.isfile(root / MANIFEST)


def _is_marked(folder: Path) -> bool:
    """Return whether a folder has an entry, of any kind, with a manifest's name.

    Then it is a tuned prompt, even if it is damaged: to treat it as a plain folder would hide the damage.
    """
    return os.path.lexists(folder / MANIFEST)


def check_base(holds: Callable[[str], bool], base: str) -> None:
    """Raise SoftPromptError where a prompt has the base's name: such a request would be ambiguous."""
    if holds(base):
        raise SoftPromptError(
            f"'{base}' is the base model's name and a prompt's",
            why="a request names its prompt, or the base, by the name alone",
            fix=f"rename the prompt's folder '{base}'",
        )


def _why_not_linked(path: Path, folder: Path) -> str:
    if not Path(os.path.realpath(path)).is_relative_to(folder):
        return f"it is a link that leads outside {folder}: copy its target, or serve a folder above both"
    return "it is a link to a folder that is no tuned prompt: such links are not followed"


def _below(folder: Path, part: str) -> Path:
    """Return the folder of this name, or of one that differs only in how accents are encoded."""
    path = folder / part
    if part.isascii() or os.path.lexists(path):
        return path
    alike = sorted(name for name in os.listdir(folder) if one_form(name) == one_form(part))
    return folder / alike[0] if alike else path
