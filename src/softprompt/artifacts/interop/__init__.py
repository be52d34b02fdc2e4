"""Tuned prompts in the file formats of other libraries and engines, one package each.

Nothing here trains. What a format cannot hold exactly is refused with the reason, never approximated.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import SoftPromptError


def check_free(folder: Path, marker: str, content: str) -> None:
    """Raise SoftPromptError where `folder` is a file, or has the file `marker`, and so holds `content`."""
    if (folder / marker).exists():
        raise SoftPromptError(
            f"{folder} already holds {content}", why="it would be lost", fix="choose another --out FOLDER"
        )
    if folder.exists() and not folder.is_dir():
        raise SoftPromptError(f"{folder} is a file", fix="choose another --out FOLDER")
