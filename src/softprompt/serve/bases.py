"""Which base model a folder of artifacts asks for, and which of them another base cannot serve.

Manifests alone are read: nothing is verified or loaded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..artifact import MANIFEST
from ..lm.base import LanguageModel
from ..lm.loading import fingerprint
from .names import Names

SHOWN = 5


def base_of(folder: Path) -> str | None:
    """The base that most artifacts of a folder name; None where there are none."""
    counts = Counter(base["name"] for _, base in sorted(_bases(folder), key=lambda found: found[0]))
    return counts.most_common(1)[0][0] if counts else None


def said(folder: Path, lm: LanguageModel) -> list[str]:
    """What a server of this base should say at its start, as sentences."""
    found = list(_bases(folder))
    if not found:
        return [f"no tuned prompts in {folder} yet; what comes there is served at once"]
    weights = fingerprint(lm)["weights"]
    others = [
        (name, base["name"])
        for name, base in found
        if (base.get("fingerprint") or {}).get("weights", weights) != weights
    ]
    if not others:
        return []
    listed = ", ".join(f"{name} (of {base})" for name, base in others[:SHOWN])
    more = f", … {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    head = f"{len(others)} of {len(found)} prompts cannot be served by {lm.name}"
    return [f"{head}, as they were made for another base: {listed}{more}"]


def _bases(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, what its manifest says of the base) of every artifact that can be read."""
    for name, path in Names(folder.resolve()).walk():
        try:
            base = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["base"]
            if isinstance(base["name"], str):
                yield name, base
        except (OSError, ValueError, KeyError, TypeError):  # damaged: whoever asks for it is told
            continue
