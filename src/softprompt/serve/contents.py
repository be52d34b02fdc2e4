"""The manifests of listed artifacts are read, and read again when they change; other files are not."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from .._system.files import read_bytes
from ..artifacts.manifest import BASE, MANIFEST, MANIFEST_BYTES, SCHEMA, is_whole
from ..errors import SoftPromptError
from ..lm.origin import RECORDED
from .file_stamps import Stamp, is_momentary, settled, stamp_of
from .served_base import OTHER_BASE, ServedBase

KEPT = 200_000  # artifacts whose contents are remembered
UNREADABLE = "its manifest cannot be read"
#: Why a head cannot be served, by the kind of its task.
HEADS = {
    "regression": "its head answers with a number, and a server answers with text and labels",
    "token-classification": "its head tags words, and a server answers with text and labels",
}
CHECKPOINT = "its head is a part of its base's checkpoint, and a server runs the base without one"


@dataclass(frozen=True, slots=True)
class Content:
    """The prompts of one artifact, and the base that they were made for."""

    prompts: tuple[str, ...] = ()
    base: str | None = None
    weights: str | None = None  # the fingerprint of the base's weights; None: not recorded
    problem: str | None = None  # why no base can serve it, if the manifest says so
    loading: str = "{}"  # JSON of the base's revision and quantization: see `lm.origin`
    head: int = 0  # outputs of the classification head that is in it; 0: it has none

    def problem_for(self, base: ServedBase) -> str | None:
        """Return why the base cannot serve it, if the manifest says so."""
        if self.problem is not None:
            return self.problem
        problem = base.problem(self.head, self.weights)
        return f"{problem}, {self.base}" if problem == OTHER_BASE else problem


@final
class Contents:
    """Remembers the contents of many artifacts."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Stamp, Content]] = {}
        self._alike: dict[Content, Content] = {}  # many artifacts have equal contents

    def of(self, path: Path) -> Content:
        key, manifest = str(path), path / MANIFEST
        stamp, held = stamp_of(manifest), self._known.get(key)
        if held is not None and held[0] == stamp:
            return held[1]
        (stamp,) = settled(lambda: (stamp_of(manifest),))
        if stamp is None:
            return Content(problem=UNREADABLE)
        content, error = _read(path)
        if is_momentary(error):
            return content
        if len(self._known) >= KEPT:
            self._known.clear()
            self._alike.clear()
        content = self._alike.setdefault(content, content)
        self._known[key] = stamp, content
        return content


def names_of(name: str, prompts: Iterable[str]) -> list[str]:
    """Return the names of an artifact's prompts: its own name, or one name for each of several prompts."""
    several = list(prompts)
    return [name] if len(several) < 2 else [f"{name}:{prompt}" for prompt in several]


def read(path: Path) -> Content:
    """Read the content of the artifact in a folder, whose other files are not verified."""
    return _read(path)[0]


def _read(path: Path) -> tuple[Content, Exception | None]:
    """Return the content, and the error where the manifest cannot be read."""
    try:
        return _parsed(read_bytes(path / MANIFEST, MANIFEST_BYTES)), None
    except (SoftPromptError, OSError) as error:
        why = error.why if isinstance(error, SoftPromptError) else error.strerror
        return Content(problem=f"{UNREADABLE}: {why}" if why else UNREADABLE), error


def _parsed(content: bytes) -> Content:
    try:
        manifest = json.loads(content.decode("utf-8"))
        if manifest.get("schema", 0) > SCHEMA:
            return Content(problem="it was written by a newer version of softprompt")
        base, prompts = manifest["base"], tuple(manifest.get("prompts") or ())
        name, weights = base["name"], (base.get("fingerprint") or {}).get("weights")
        texts = [name, *prompts, *([] if weights is None else [weights])]
        if not all(isinstance(text, str) for text in texts) or not is_whole(content, manifest):
            raise ValueError
        "".join(texts).encode("utf-8")  # half a surrogate pair cannot be sent
        loading = json.dumps({key: base[key] for key in RECORDED if key in base}, sort_keys=True)
        return Content(prompts, name, weights, problem_of(manifest), loading, head_of(manifest))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Content(problem="its manifest is damaged")


def head_of(manifest: Mapping[str, Any]) -> int:
    """Return how many outputs the classification head has that is saved with the prompt; 0 where none is."""
    mode = manifest["base"].get("mode", "frozen")
    return len(manifest.get("labels") or ()) if mode == "frozen" and BASE in manifest.get("files", ()) else 0


def problem_of(manifest: Mapping[str, Any]) -> str | None:
    """Return why no base can serve the prompt that a manifest describes."""
    mode, has_head = manifest["base"].get("mode", "frozen"), BASE in manifest.get("files", ())
    if mode != "frozen":
        return f"it was trained together with its base ({mode})"
    if not has_head:
        return CHECKPOINT if "head" in manifest else None
    task = manifest.get("recipe", {}).get("task") or {}
    if task.get("kind") == "classification" and task.get("head"):
        return None
    return HEADS.get(str(task.get("kind")), "its head answers several labels a row, which no task reads")
