"""Requests share the keys and values of prompts ahead of the input, and of inputs.

What follows a token does not change its keys and values. So a prompt ahead of the input is computed once; an
input ahead of prompts is computed once for all of them and for the plain model; and an input that is repeated
under the same prompt, as for several samples, is not computed again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import final

from ..lm.context import Context


@dataclass(frozen=True, slots=True)
class Key:
    """Identifies what the keys and values were computed from."""

    ahead: str  # identifies all vectors ahead of the input; "": none
    ids: tuple[int, ...]  # the input's first tokens; none: only the soft tokens ahead


@final
class PrefixCache:
    """Keeps the contexts that were used last, each of one sequence, up to `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self.hits = self.misses = 0
        self._kept: OrderedDict[Key, Context] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def get(self, key: Key) -> Context | None:
        context = self._kept.get(key)
        if context is None:
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(key)
        return context

    def put(self, key: Key, context: Context) -> None:
        size = _bytes(context)
        if key in self._kept or size > self.max_bytes:
            return
        self._kept[key] = context
        self.bytes += size
        while self.bytes > self.max_bytes:
            self.bytes -= _bytes(self._kept.popitem(last=False)[1])


def _bytes(context: Context) -> int:
    layers = (layer for layer in context.layers if layer is not None)
    return sum(t.numel() * t.element_size() for layer in layers for t in (layer.key, layer.value))
