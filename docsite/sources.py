"""A link that leaves the docs leads to a page that shows the file or the folder."""

from __future__ import annotations

from pathlib import Path

LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".md": "markdown", ".sh": "bash"}
NAMED = {"Dockerfile": "docker"}
#: A longer file is named with its size.
LONGEST = 40_000


def shown(root: Path, path: str) -> str:
    """Return a page with the text of a file, or of the files of a folder."""
    place = root / path
    files = [place] if place.is_file() else sorted(file for file in place.rglob("*") if _belongs(file))
    parts = [f"# `{path}`\n", "This is in the repository.\n" if place.is_file() else ""]
    parts += [_file(root, file, alone=place.is_file()) for file in files]
    return "\n".join(parts)


def _belongs(file: Path) -> bool:
    return file.is_file() and "__pycache__" not in file.parts


def _file(root: Path, file: Path, alone: bool) -> str:
    name = file.relative_to(root).as_posix()
    language = NAMED.get(file.name) or LANGUAGES.get(file.suffix)
    if language is None or file.stat().st_size > LONGEST:
        return f"- `{name}` ({file.stat().st_size:,} bytes)"
    title = "" if alone else f"## `{name}`\n\n"
    return f"{title}````{language}\n{file.read_text(encoding='utf-8').rstrip()}\n````\n"
