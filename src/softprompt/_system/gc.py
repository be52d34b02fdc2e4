"""Python's garbage collector runs less often while libraries are imported and models are loaded.

By default it looks at all new objects after every 700 of them. Modules and weights are no garbage, and
looking at them is a fifth of the time of importing torch and transformers.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

RARELY = 100_000  # new objects between two looks


@contextlib.contextmanager
def rare_collection() -> Iterator[None]:
    """Collect rarely inside, and as before afterwards (training might leave large tensors in cycles)."""
    before = gc.get_threshold()
    gc.set_threshold(max(RARELY, before[0]) if before[0] else 0, *before[1:])  # 0: it is switched off
    try:
        yield
    finally:
        gc.set_threshold(*before)
