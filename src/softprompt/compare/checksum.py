"""Whether a trial's record on disk is what was written: it carries a hash of its own content.

Records of earlier versions carry none. Of these the types of what every reader needs are checked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from pydantic import BaseModel, ConfigDict, ValidationError

DIGEST = "digest"


class _Record(BaseModel):
    """What readers need of a record; what only some phases have has a default, which is not asked for."""

    model_config = ConfigDict(strict=True)

    id: str
    contestant: str
    phase: str
    settings: dict[str, Any]
    seed: int | None
    rows: int | None
    about: dict[str, Any]
    status: str
    error: dict[str, Any] | None
    dev: dict[str, float | None] = {}
    dev_key: list[float | None] = []
    best_step: int = 0
    steps: int = 0
    history: list[dict[str, Any]] = []
    seconds: float = 0.0
    cost: dict[str, Any] = {}
    metrics: dict[str, dict[str, Any]] = {}
    calibration: dict[str, Any] | None = None
    examples: list[dict[str, Any]] = []
    prompts: list[str] = []
    control: list[dict[str, Any]] = []
    serving: dict[str, Any] | None = None


_TRAINED = ("dev", "dev_key", "best_step", "steps", "history", "cost")
_SCORED = ("dev_key", "metrics", "calibration", "examples")
#: What a record of a phase holds, unless the trial failed.
_NEEDED = {
    **dict.fromkeys(("search", "final", "curve"), _TRAINED),
    **dict.fromkeys(("reference", "score"), _SCORED),
    "measure": ("control", "serving"),
    **dict.fromkeys(("growth", "newcomer"), ("examples",)),
}


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with a hash of what it holds."""
    content = {key: value for key, value in record.items() if key != DIGEST}
    return {**content, DIGEST: _hash(content)}


def is_whole(found: Any) -> TypeGuard[dict[str, Any]]:
    """Whether what was read is a record, as it was written."""
    if not isinstance(found, dict):
        return False
    if DIGEST in found:
        return found[DIGEST] == _hash({key: value for key, value in found.items() if key != DIGEST})
    try:
        _Record.model_validate(found)
    except (ValidationError, RecursionError):
        return False
    if found["status"] == "failed":
        return found["error"] is not None
    return all(key in found for key in _NEEDED.get(found["phase"], ()))


def _hash(content: Mapping[str, Any]) -> str:
    """sha256 (hex) of the content as JSON writes it."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
