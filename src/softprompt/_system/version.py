"""The version of this library comes from the tag (`vX.Y.Z`) of the source that runs.

The build backend (hatch-vcs, see pyproject.toml) writes it into the package's metadata. A source tree with
git, where an editable install keeps the metadata of the day on which it was made, is asked itself, so that
artifacts never record an older version. Its answer is the backend's: after `v0.1.0`, `0.1.1.dev3+g1a2b3c4d5`
is the third commit, and `.d20261130` at its end are changes of that day that are not committed.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

#: Where no tag is known: the next release, as `fallback-version` in pyproject.toml.
FALLBACK = "0.1.0.dev0"
GIT_SECONDS = 10.0
_DESCRIBED = re.compile(r"v(?P<tag>.+)-(?P<commits>\d+)-g(?P<commit>[0-9a-f]+)(?P<changed>-dirty)?")


@cache
def version() -> str:
    """Return the version of the library, in the form of PEP 440.

    That of the source tree if it has one, else that of the installed package. `FALLBACK` replaces a tag in
    a tree without tags, and is the version of sources that are neither in git nor installed.
    """
    import importlib.metadata

    top = Path(__file__).resolve().parents[3]
    if (top / ".git").exists() and (top / "src/softprompt") == Path(__file__).resolve().parents[1]:
        described = from_git(top)
        if described is not None:
            return described
    try:
        return importlib.metadata.version("softprompt")
    except importlib.metadata.PackageNotFoundError:
        return FALLBACK


def from_git(top: Path) -> str | None:
    """Return the version of the git work tree `top`; None where git is missing, refuses, or has no commit."""
    described = _git(top, "describe", "--tags", "--long", "--dirty", "--abbrev=9", "--match", "v[0-9]*")
    if described is None:  # there is no tag
        commit = _git(top, "describe", "--always", "--dirty", "--abbrev=9", "--exclude", "*")
        commits = _git(top, "rev-list", "--count", "HEAD")
        if commit is None or commits is None:
            return None
        described = f"v{FALLBACK}-{commits}-g{commit}"
    match = _DESCRIBED.fullmatch(described)
    if match is None:
        return None
    tag, changed = match["tag"], bool(match["changed"])
    if match["commits"] == "0" and not changed:
        return tag
    return f"{_next(tag)}.dev{match['commits']}+g{match['commit']}{_today() if changed else ''}"


def _next(tag: str) -> str:
    """The release that follows a tag: its last number, raised; that of a development version itself."""
    head, development, _ = tag.partition(".dev")
    return head if development else re.sub(r"\d+$", lambda number: str(int(number[0]) + 1), head)


def _today() -> str:
    from datetime import datetime, timezone

    return datetime.now(timezone.utc).strftime(".d%Y%m%d")


def _git(top: Path, *arguments: str) -> str | None:
    import subprocess

    try:
        done = subprocess.run(
            ["git", "-C", str(top), *arguments], capture_output=True, text=True, timeout=GIT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
