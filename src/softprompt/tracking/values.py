"""A recipe becomes the parameters of a tracked run: flat, and without secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .._system.secrets import without_secrets

Scalar = bool | int | float | str

HIDDEN = "…"
_SECRET = re.compile(r"(?i)(^|[_.-])(api_?key|access_?key|token|secret|password|passwd|credentials?)$")


def cleaned(value: Any, key: str = "") -> Any:
    """Copy plain values; hide texts under the names of secrets, and passwords in addresses."""
    if isinstance(value, Mapping):
        return {name: cleaned(item, str(name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [cleaned(item, key) for item in value]
    if isinstance(value, str):
        return HIDDEN if _SECRET.search(key) else without_secrets(value)
    return value


def flat(values: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return `{"train.lr": 0.01, …}` of nested sections, cleaned; lists become JSON, and None is left out."""
    return dict(_leaves(cleaned(values)))


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            yield from _leaves(item, f"{name}.")
        elif isinstance(item, (bool, int, float, str)):
            yield name, item
        elif item is not None:
            yield name, json.dumps(item, ensure_ascii=False)
