"""Names of prompts: which folder names are allowed in them, and how files are named after them.

A name is an artifact's path below a folder, with slashes; where an artifact has several prompts, a colon and
the prompt's own name follow. No two names share a file.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

HASHED = "%~"  # begins the hash of a part that cannot be a file's name; no quoted text holds it
LONGEST = 100  # characters of a part in a file's name; file systems take 255 bytes of the whole
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_LIKE_HASHED = re.compile(r".*-[0-9a-f]{16}", re.IGNORECASE)


def one_form(text: str) -> str:
    """Write a letter with an accent as one character; some systems write names with two."""
    return unicodedata.normalize("NFC", text)


def nameable(part: str) -> bool:
    """Tell whether a folder may be part of a name: a colon separates the prompt, JSON holds UTF-8 only."""
    return bool(part) and not part.startswith(".") and part.isprintable() and not {":", "\\"} & set(part)


def why_not(part: str) -> str:
    """Say why a folder of this name cannot be part of a prompt's name."""
    if part.startswith("."):
        return "folders whose names begin with a dot are hidden"
    if ":" in part:
        return "a colon in a name separates a folder from a prompt in it: rename the folder"
    if "\\" in part:
        return "a backslash cannot be part of a name: rename the folder"
    return "a character of its name cannot be printed: rename the folder"


def is_trial(folder: Path, part: str) -> bool:
    """Tell whether a folder in `folder` is a trial that a comparison recorded."""
    return folder.name == "trials" and os.path.isfile(folder / f"{part}.json")


def path_of(name: str) -> str:
    """Return the path of a name's file, without an ending: the artifact's folders, and one file a prompt.

    No two names have the same path, and none leaves the folder. A part that cannot be a file's name is
    hashed; then the name cannot be recovered from the path.
    """
    artifact, colon, prompt = name.partition(":")
    parts = [_part(part) for part in artifact.split("/")]
    return "/".join(parts) + (f"{quote(colon)}{_part(prompt)}" if colon else "")


def slot_files(names: Iterable[str], ending: str) -> dict[str, str]:
    """Name a file for each of an artifact's prompts, for servers that take plain names without folders.

    No two are the same, also where capital and small letters are not distinguished.
    """
    names = list(names)
    alike = Counter(name.casefold() for name in names)
    return {name: _slot_file(name, alike[name.casefold()] > 1) + ending for name in names}


def _slot_file(name: str, is_shared: bool) -> str:
    plain = _PLAIN.fullmatch(name) and len(name) <= LONGEST and not _LIKE_HASHED.fullmatch(name)
    if plain and not is_shared:
        return name
    shown = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")[: LONGEST // 2]
    return f"{shown or 'prompt'}-{_digest(name)[:16]}"


def _part(part: str) -> str:
    quoted = quote(part, safe="", errors="surrogatepass")
    if not part or part.startswith(".") or part.endswith((".", ".json")) or len(quoted) > LONGEST:
        return HASHED + _digest(part)
    return quoted


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
