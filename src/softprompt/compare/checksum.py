"""Records carry a hash of their content, which shows whether a file holds what was written.

Records of earlier versions have no hash. Their keys and types are checked instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from pydantic import TypeAdapter, ValidationError

from .phase import PHASES
from .records import Record

DIGEST = "digest"
_RECORD = TypeAdapter(Record)


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record with a hash of its content."""
    content = {key: value for key, value in record.items() if key != DIGEST}
    return {**content, DIGEST: _hash(content)}


def is_whole(value: Any) -> TypeGuard[Record]:
    """Return whether a value that was read is a record as it was written."""
    if not isinstance(value, dict):
        return False
    if DIGEST in value:
        return value[DIGEST] == _hash({key: item for key, item in value.items() if key != DIGEST})
    try:
        record = _RECORD.validate_python(value)
    except (ValidationError, RecursionError):
        return False
    if record["status"] == "failed":
        return record["error"] is not None
    phase = PHASES.get(record["phase"])
    return phase is None or all(key in record for key in phase.writes)


def _hash(content: Mapping[str, Any]) -> str:
    """Return the sha256 (hex) of the content as JSON."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
