"""The number of positions that go through the model at once in training is limited here.

A pass over fewer positions leaves the machine idle, one over more is no faster a position and only holds
more memory (docs/performance.md). So small steps share a pass, and large ones are taken in several.
"""

from __future__ import annotations

STEP_TOKENS = {"cpu": 512, "cuda": 8192}  # positions computed with gradient
INPUT_TOKENS = {"cpu": 8192, "cuda": 131_072}  # positions of cached inputs, which a pass holds


def at_once(device: str) -> tuple[int, int]:
    """(positions computed with gradient, positions of inputs) of a pass on a device of that type."""
    kind = "cuda" if device.startswith("cuda") else "cpu"
    return STEP_TOKENS[kind], INPUT_TOKENS[kind]
