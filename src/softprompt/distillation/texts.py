"""Several texts are read by name: from files, from a folder, or from a table of rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.sources import FORMATS, read_rows
from ..data.spelling import same_form
from ..errors import SoftPromptError

TEXTS = (".md", ".txt")  # files of a folder that are texts
NAME, TEXT = "name", "text"  # the columns of a table


def are_several(sources: Sequence[Path]) -> bool:
    """Return whether the sources hold several texts: they are two or more, a folder, or a table."""
    return len(sources) > 1 or any(source.is_dir() or _is_table(source) for source in sources)


def texts_of(sources: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Return the texts as `teacher.texts` of a recipe has them, by name; a file is named as it is called.

    Raises SoftPromptError for two texts of one name, and a source that holds none.
    """
    texts: dict[str, dict[str, Any]] = {}
    for source in sources:
        for name, text in _texts(source).items():
            _add(texts, name, text)
    return texts


def check_text(text: Any, of: str = "") -> None:
    """Raise SoftPromptError for what is no text and no Path, and for a text that is the name of a file.

    `of` is the text's name, behind a space.
    """
    if not isinstance(text, (str, Path)):
        raise SoftPromptError(
            f"the text{of} is no text, but of the type {type(text).__name__}",
            why="it is a str, or the Path of the file that holds it; several are a mapping, by name",
            fix="Path('system.txt') or {'a': text, 'b': text}",
        )
    if isinstance(text, str) and os.path.isfile(text):
        raise SoftPromptError(
            f"the text{of} is the name of a file: {text}",
            why="a str is the text itself, so the vectors would replace this name",
            fix=f"Path({text!r})",
        )


def checked(texts: Mapping[str, str | Path]) -> dict[str, dict[str, Any]]:
    """Return texts in memory as `teacher.texts` has them. Raises SoftPromptError for what is no text."""
    result: dict[str, dict[str, Any]] = {}
    for name, text in texts.items():
        if not isinstance(name, str):
            raise SoftPromptError(f"the name of a text is no text: {name!r}", fix=f"call it {str(name)!r}")
        check_text(text, f" '{name}'")
        _add(result, name, {"file": str(text)} if isinstance(text, Path) else {"context": text})
    return result


def _add(texts: dict[str, dict[str, Any]], name: str, text: dict[str, Any]) -> None:
    if any(same_form(name) == same_form(known) for known in texts):
        raise SoftPromptError(
            f"two texts are called '{name}'",
            why="a name is how one of the prompts is chosen",
            fix=f"rename a file, or give a table of rows with the fields {NAME} and {TEXT}",
        )
    if not name.strip() or not str(text.get("context", "text")).strip():
        raise SoftPromptError(
            f"the text '{name}' has no name or is empty", fix="write the text that the vectors replace"
        )
    texts[name] = text


def _texts(source: Path) -> dict[str, dict[str, Any]]:
    if source.is_dir():
        files = sorted(file for file in source.iterdir() if _is_text(file))
        if not files:
            raise SoftPromptError(
                f"the folder {source} holds no text", why=f"files that end in {', '.join(TEXTS)} are texts"
            )
        result: dict[str, dict[str, Any]] = {}
        for file in files:
            _add(result, file.stem, {"file": str(file)})
        return result
    if not _is_table(source):
        return {source.stem: {"file": str(source)}}
    result = {}
    for row in read_rows(str(source)):
        if not all(isinstance(row.get(key), str) for key in (NAME, TEXT)):
            raise SoftPromptError(
                f"{row.where}: no {NAME} or no {TEXT}",
                why=f"a table of texts has these fields; the row has: {', '.join(map(str, row))}",
                fix=f'{{"{NAME}": "returns", "{TEXT}": "…"}}',
            )
        _add(result, row[NAME], {"context": row[TEXT]})
    return result


def _is_table(source: Path) -> bool:
    return source.suffix.lower() in FORMATS


def _is_text(file: Path) -> bool:
    return file.suffix.lower() in TEXTS and not file.name.startswith(".") and file.is_file()
