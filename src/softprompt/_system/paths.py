"""Paths are read as people write them, with `~` and `$NAME`, and refused where no file can have the name."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Literal

from ..errors import SoftPromptError

#: Endings of files that hold rows.
ROWS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

Kind = Literal["missing", "file", "folder", "pipe", "device"]


def expanded(path: str | Path) -> str:
    """Return the path with `~`, `~name` and `$NAME` written out; a name that is not known stays as it is."""
    return os.path.expandvars(os.path.expanduser(str(path)))


def unexpanded(path: str) -> str | None:
    """Return what is not written out in an expanded path: `~name` or `$NAME`; None where all is."""
    match = re.match(r"~[^/\\]*", path) or re.search(r"\$(\w+|\{\w+\})", path)
    return match[0] if match else None


def shown(path: str | Path) -> str:
    """Return the path as an error shows it."""
    text = str(path).replace("\0", "␀")
    return text if len(text) <= 200 else text[:200] + "…"


def unusable(path: str | Path) -> str | None:
    """Return why no file can have this name; None where one can."""
    try:
        os.stat(path)
    except ValueError:
        return "no name holds a NUL character"
    except OSError as error:
        return error.strerror if error.errno == errno.ENAMETOOLONG else None
    return None


def kind_of(path: Path, name: str) -> Kind:
    """Return what is at the path. Raises SoftPromptError, naming `name`, for a name that no file can have."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "no name holds a NUL character"
        raise SoftPromptError(f"cannot read {name} '{shown(path)}'", why, "give the name of a file") from None
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "pipe" if stat.S_ISFIFO(mode) else "device"


def cache_root() -> Path:
    """Return the folder of converted models: $SOFTPROMPT_CACHE, or softprompt/ in the user's cache folder."""
    folder = os.environ.get("SOFTPROMPT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(folder) if folder else Path(base) / "softprompt"
