"""State that a model keeps on its own modules between calls, and not in a cache.

RecurrentGemma's layers keep their recurrent state on themselves. It would continue from the end of the last
row where the next input has one token, which transformers takes for a step of decoding. Some rotary
embeddings grow with the longest row that they have seen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from .library_internals import buffers_of


@contextlib.contextmanager
def cleared(model: nn.Module) -> Iterator[None]:
    """Attributes that were None, and that a call inside sets to tensors, are None again afterwards."""
    empty = [(module, name) for module in model.modules() for name, at in vars(module).items() if at is None]
    try:
        yield
    finally:
        for module, name in empty:
            if isinstance(getattr(module, name, None), Tensor):
                setattr(module, name, None)


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Attributes and buffers of every module are afterwards the ones that were there before."""
    holders: list[dict[str, Any]] = []
    for module in model.modules():
        holders += [vars(module), buffers_of(module)]
    before = [dict(holder) for holder in holders]
    try:
        yield
    finally:
        for holder, values in zip(holders, before, strict=True):
            if holder.keys() != values.keys() or any(
                holder[name] is not value for name, value in values.items()
            ):
                holder.clear()
                holder.update(values)
