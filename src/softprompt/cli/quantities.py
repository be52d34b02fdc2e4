"""Sizes and times of options, as people write them: `8GB`, `50ms`, `10m`."""

from __future__ import annotations

from collections.abc import Mapping

from .._system.units import BYTES, SECONDS, amount
from ..errors import SoftPromptError


def memory(text: str, option: str) -> int:
    """Convert `8GB` or `512 MiB` to bytes."""
    return round(_number(text, BYTES, option, "8GB"))


def seconds(text: str, option: str) -> float:
    """Convert `50ms`, `10m` or `1.5h` to seconds."""
    return _number(text, SECONDS, option, "50ms" if option == "--latency" else "10m")


def _number(text: str, units: Mapping[str, float], option: str, example: str) -> float:
    value = amount(text, units)
    if value is None:
        raise SoftPromptError(
            f"{option} {text}: not understood",
            why=f"it takes a number above 0 and a unit: {', '.join(units)}",
            fix=f"{option} {example}",
        )
    return value
