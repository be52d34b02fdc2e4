"""Both engines classify by these rules, which are shared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..data.encode import Encoder
from ..data.example import Example
from .request import InvalidRequest

CHOOSING = ("classification", "choice")  # kinds of tasks that choose
Row = str | Mapping[str, Any] | Example  # an Example was encoded before


def check_kind(name: str, kind: str) -> None:
    """Raise InvalidRequest for a prompt whose task does not choose among labels."""
    if kind not in CHOOSING:
        raise InvalidRequest(
            f"prompt '{name}' was not made to classify",
            why=f"its task is {kind}",
            fix="ask it for a completion, or ask a classification prompt",
        )


def encoded(encoder: Encoder, rows: Sequence[Row], prompt: str) -> list[Example]:
    """Encode the rows that are not encoded yet, without their targets."""
    return [
        row if isinstance(row, Example) else encoder.encode(row, with_target=False, prompt=prompt)
        for row in rows
    ]


def probabilities(names: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
    """Turn log-probabilities (nats) of the labels into probabilities that add up to 1."""
    largest = max(scores)
    weights = [math.exp(score - largest) for score in scores]
    return {name: weight / sum(weights) for name, weight in zip(names, weights, strict=True)}
