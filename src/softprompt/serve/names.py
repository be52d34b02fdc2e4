"""Names of prompts and the folders they stand for: a name is an artifact's path under one folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import final

from ..artifact import MANIFEST
from .request import UnknownPrompt


@final
class Names:
    """The artifacts under a folder, by name. Nothing is indexed, and nothing outside has a name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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

    def walk(self) -> Iterator[tuple[str, Path]]:
        """Every name and its folder, as folders are walked; those of one folder in the order of names."""
        return self._walk(self.folder, "")

    def _inside(self, name: str) -> Path | None:
        """The artifact's folder; None where there is none, or it is not under ours."""
        parts = name.split("/")
        if "\0" in name or "\\" in name or any(not _nameable(part) for part in parts):
            return None
        try:
            path = self.folder.joinpath(*parts).resolve()
            inside = path.is_relative_to(self.folder) and (path / MANIFEST).is_file()
        except (OSError, ValueError, RuntimeError):  # too long a name, a link that leads to itself
            return None
        return path if inside else None

    def _walk(self, folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
        try:
            with os.scandir(folder) as found:
                inner = sorted((e for e in found if _nameable(e.name)), key=lambda e: e.name)
        except OSError:  # removed, or not ours to read
            return
        for item in inner:
            name = prefix + item.name
            if item.is_symlink():  # of use as a name for the version that is served; never walked into
                path = self._inside(name)
            elif item.is_dir():
                path = folder / item.name
            else:
                continue
            if path is None:
                continue
            if (path / MANIFEST).is_file():
                yield name, path
            elif not item.is_symlink():
                yield from self._walk(path, name + "/")


def _nameable(part: str) -> bool:
    """Whether a folder may be part of a name: a colon parts it from a prompt, and JSON holds UTF-8 alone."""
    return bool(part) and not part.startswith(".") and ":" not in part and part.isprintable()
