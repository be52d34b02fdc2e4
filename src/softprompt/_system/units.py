"""Sizes and times as people write them: `8GB`, `50ms`, `10m`."""

from __future__ import annotations

import re
from collections.abc import Mapping

BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def amount(text: str, units: Mapping[str, float]) -> float | None:
    """Return what `text` says in the base unit; None where it is no number above 0 with one of the units."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]+)\s*", text)
    if match is None or match[2].lower() not in units or float(match[1]) <= 0:
        return None
    return float(match[1]) * units[match[2].lower()]
