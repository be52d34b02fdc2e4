"""State that a model keeps on its own modules between calls, and not in a cache: cleared after `generate`.

RecurrentGemma's layers keep their recurrent state so. It would go on from the last row's end where the next
input has one token, which transformers takes for a step of decoding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn


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
