"""Sizes and times as people write them: `8GB`, `50ms`, `10m`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..errors import SoftPromptError

BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def memory(text: str, option: str) -> int:
    """Convert `8GB` or `512 MiB` to bytes."""
    return round(_number(text, BYTES, option, "8GB"))


def seconds(text: str, option: str) -> float:
    """Convert `50ms`, `10m` or `1.5h` to seconds."""
    return _number(text, SECONDS, option, "50ms" if option == "--latency" else "10m")


def _number(text: str, units: Mapping[str, float], option: str, example: str) -> float:
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]+)\s*", text)
    if match is None or match[2].lower() not in units or float(match[1]) <= 0:
        raise SoftPromptError(
            f"{option} {text}: not understood",
            why=f"it takes a number above 0 and a unit: {', '.join(units)}",
            fix=f"{option} {example}",
        )
    return float(match[1]) * units[match[2].lower()]
