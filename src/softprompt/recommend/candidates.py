"""The methods to choose from are listed here, with the place of their vectors and the settings to start with.

Steps and batch sizes are those of `benchmarks/quality.py`; learning rates the methods' own, where no other
was seen to do better with so few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Depth = Literal["embedding", "kv", "weights", "none"]
LENGTH = 16  # vectors


@dataclass(frozen=True)
class MethodChoice:
    """A candidate is one way of doing the task."""

    name: str
    depth: Depth  # soft tokens, keys and values, the base's weights, or nothing trained
    method: str = "none"
    options: Mapping[str, Any] = field(default_factory=dict)
    base: Literal["frozen", "lora"] = "frozen"
    steps: int = 200
    batch_size: int = 32
    shots: int = 0
    says: str = ""
    rate: float | None = None  # the rate for few steps, where it is not the default

    @property
    def is_trained(self) -> bool:
        """Return whether there is something to train."""
        return self.depth != "none"

    @property
    def placement(self) -> str | None:
        """Return `before` or `after` (the input); None where no vectors are injected."""
        return self.options.get("placement")


def _at(placement: str) -> dict[str, Any]:
    return {"placement": placement, "length": LENGTH}


def _vectors(method: str, placement: str, depth: Depth, says: str, **settings: Any) -> MethodChoice:
    return MethodChoice(f"{method}/{placement}", depth, method, _at(placement), says=says, **settings)


BEFORE: dict[str, Any] = {"steps": 120, "batch_size": 16}  # the whole sequence runs in every step
#: After 60 to 100 steps on nine sets these were nearly the best rates: "Learning rates" in
#: docs/nine-comparisons.md.
VECTORS_RATE, LORA_RATE = 3e-2, 3e-3
_ALL = (
    _vectors("prompt-tuning", "after", "embedding", "soft tokens behind the input", steps=150),
    _vectors("prompt-tuning", "before", "embedding", "soft tokens ahead of the input", **BEFORE),
    _vectors(
        "prefix-tuning", "after", "kv", "keys and values in every layer, behind the input", rate=VECTORS_RATE
    ),
    _vectors(
        "prefix-tuning",
        "before",
        "kv",
        "keys and values in every layer, ahead of the input",
        rate=VECTORS_RATE,
        **BEFORE,
    ),
    _vectors("generated-prefix", "after", "kv", "a prefix made from each input", steps=400),
    _vectors("generated-prompt", "after", "embedding", "soft tokens made from each input", steps=400),
    _vectors("p-tuning", "after", "embedding", "soft tokens through a small network", rate=VECTORS_RATE),
    _vectors("multitask-prompt-tuning", "after", "embedding", "a shared prompt times small factors of each"),
    MethodChoice(
        "lora",
        "weights",
        base="lora",
        says="low-rank changes of the base's weights",
        rate=LORA_RATE,
        **BEFORE,
    ),
    MethodChoice("few-shot", "none", shots=4, says="the plain model, shown rows; nothing is trained"),
    MethodChoice("zero-shot", "none", says="the plain model; nothing is trained"),
)

#: In the order that breaks ties: the cheaper to store and to serve comes first.
CANDIDATES: dict[str, MethodChoice] = {candidate.name: candidate for candidate in _ALL}
