"""What manifests say of the artifacts that are listed.

Manifests alone are read, and again when they change.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from .._system.files import read_bytes
from ..artifacts.manifest import BASE, MANIFEST, MANIFEST_BYTES, SCHEMA, is_whole
from ..errors import SoftPromptError
from .file_stamps import Stamp, is_momentary, settled, stamp_of

KEPT = 200_000  # artifacts whose contents are remembered
UNREADABLE = "its manifest cannot be read"


@dataclass(frozen=True, slots=True)
class Content:
    """Of one artifact: its prompts, and the base they are for."""

    prompts: tuple[str, ...] = ()
    base: str | None = None
    weights: str | None = None  # the fingerprint of the base's; None: not recorded
    problem: str | None = None  # why no base can serve it, as far as the manifest tells

    def problem_for(self, weights: str) -> str | None:
        """Why a base of these weights cannot serve it, as far as the manifest tells."""
        if self.problem is None and self.weights not in (None, weights):
            return f"it was made for another base, {self.base}"
        return self.problem


@final
class Contents:
    """Those of many artifacts, remembered."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Stamp, Content]] = {}
        self._alike: dict[Content, Content] = {}  # many artifacts say the same

    def of(self, path: Path) -> Content:
        """Of the artifact in a folder."""
        key, manifest = str(path), path / MANIFEST
        stamp, held = stamp_of(manifest), self._known.get(key)
        if held is not None and held[0] == stamp:
            return held[1]
        (stamp,) = settled(lambda: (stamp_of(manifest),))
        if stamp is None:
            return Content(problem=UNREADABLE)
        try:
            content = _said(path)
        except (SoftPromptError, OSError) as error:
            content = _unread(error)
            if is_momentary(error):
                return content
        if len(self._known) >= KEPT:
            self._known.clear()
            self._alike.clear()
        content = self._alike.setdefault(content, content)
        self._known[key] = stamp, content
        return content


def names_of(name: str, prompts: Iterable[str]) -> list[str]:
    """The names by which an artifact's prompts are asked for: its own, or one for each of several."""
    several = list(prompts)
    return [name] if len(several) < 2 else [f"{name}:{prompt}" for prompt in several]


def read(path: Path) -> Content:
    """Of the artifact in a folder, whose other files are not verified."""
    try:
        return _said(path)
    except (SoftPromptError, OSError) as error:
        return _unread(error)


def _unread(error: SoftPromptError | OSError) -> Content:
    why = error.why if isinstance(error, SoftPromptError) else error.strerror
    return Content(problem=f"{UNREADABLE}: {why}" if why else UNREADABLE)


def _said(path: Path) -> Content:
    """Raises SoftPromptError and OSError where the manifest cannot be read."""
    content = read_bytes(path / MANIFEST, MANIFEST_BYTES)
    try:
        said = json.loads(content.decode("utf-8"))
        if said.get("schema", 0) > SCHEMA:
            return Content(problem="it was written by a newer version of softprompt")
        base, prompts = said["base"], tuple(said.get("prompts") or ())
        name, weights = base["name"], (base.get("fingerprint") or {}).get("weights")
        texts = [name, *prompts, *([] if weights is None else [weights])]
        if not all(isinstance(text, str) for text in texts) or not is_whole(content, said):
            raise ValueError
        "".join(texts).encode("utf-8")  # half a character cannot be sent to anybody
        return Content(prompts, name, weights, _problem(base, said.get("files") or ()))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Content(problem="its manifest is damaged")


def _problem(base: dict[str, Any], files: Iterable[str]) -> str | None:
    mode = base.get("mode", "frozen")
    if mode == "frozen" and BASE not in files:
        return None
    return f"it was trained together with its base ({mode}) or a head"
