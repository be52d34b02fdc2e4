"""Paths as people write them: `~` and `$NAME` stand for folders, and a name may be too long to be one."""

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
    """The path with `~`, `~name` and `$NAME` written out; what cannot be stays as it is."""
    return os.path.expandvars(os.path.expanduser(str(path)))


def unexpanded(path: str) -> str | None:
    """What of an expanded path still stands for something: `~name` of nobody, `$NAME` that is not set."""
    found = re.match(r"~[^/\\]*", path) or re.search(r"\$(\w+|\{\w+\})", path)
    return found[0] if found else None


def shown(path: str | Path) -> str:
    """The path as an error names it."""
    text = str(path).replace("\0", "␀")
    return text if len(text) <= 200 else text[:200] + "…"


def unusable(path: str | Path) -> str | None:
    """Why no file can have this name; None where one can."""
    try:
        os.stat(path)
    except ValueError:
        return "no name holds a NUL character"
    except OSError as error:
        return error.strerror if error.errno == errno.ENAMETOOLONG else None
    return None


def kind_of(path: Path, what: str) -> Kind:
    """What is there. Raises SoftPromptError for a name that no file can have; `what` was looked for."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except (OSError, ValueError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "no name holds a NUL character"
        raise SoftPromptError(f"cannot read {what} '{shown(path)}'", why, "give the name of a file") from None
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "pipe" if stat.S_ISFIFO(mode) else "device"


def cache_root() -> Path:
    """Where converted models live: $SOFTPROMPT_CACHE, or softprompt/ in the user's cache folder."""
    own = os.environ.get("SOFTPROMPT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(own) if own else Path(base) / "softprompt"
