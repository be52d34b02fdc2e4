"""Records where a base model came from and how it was loaded, so that an artifact can load the same base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Keys of `Origin` that decide what the base computes, as they stand in a manifest's `base`.
RECORDED = (
    "revision",
    "quantization",
    "attn_implementation",
    "trust_remote_code",
    "in_memory",
    "pooling",
    "weights",
)
OF_TASK = ("in_memory", "pooling", "weights")  # that no recipe's `model` section has


@dataclass(frozen=True)
class Origin:
    """Holds how a base was loaded. A default means that nothing was asked for."""

    revision: str | None = None  # of a hub id: the commit where it is known, else as it was given
    quantization: Mapping[str, Any] | None = None  # the fields of transformers' configuration, as JSON values
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    device_map: Any = None  # belongs to a machine: it is not recorded
    in_memory: bool = False  # the caller gave the model
    weights: str | None = None  # int8, where the frozen weights are in 8 bits
    pooling: str | None = None  # how a text's vector is read; None: the base was loaded to answer

    def record(self) -> dict[str, Any]:
        """Return what an artifact's manifest records, without what is not set."""
        values = {key: getattr(self, key) for key in RECORDED}
        return {key: value for key, value in values.items() if value not in (None, False)}

    def recipe(self, name: str) -> dict[str, Any]:
        """Return the `model` section of a recipe of this base."""
        values = self.record() | ({} if self.device_map is None else {"device_map": self.device_map})
        return {"id": name, **{key: value for key, value in values.items() if key not in OF_TASK}}
