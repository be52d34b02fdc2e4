"""Time a full step by the number of positions a pass, the limit of `training.micro_batch`.

A larger pass needs more memory, which is wasted if the time no longer falls.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from unittest.mock import patch

import softprompt
from softprompt.training import micro_batch

from .line import Line
from .options import Options
from .ours import Ours
from .rows import encoded


def measure(options: Options) -> Iterator[Line]:
    """Measure a step of twice the batch by positions a pass, against one pass for all."""
    for dtype in options.dtypes:
        lm = softprompt.load(options.model, dtype=dtype)
        rows = encoded(options.data, "sst2", 2 * options.batch, lm.tokenizer)
        side = Ours(lm, "prompt-tuning", rows)
        numbers = list(range(len(rows)))
        seconds: dict[int, list[float]] = {limit: [] for limit in options.passes}
        for block in range(-1, options.blocks):  # the first one only warms the machine up
            for limit, durations in seconds.items():
                with patch.dict(micro_batch.STEP_TOKENS, cpu=limit):
                    started = time.perf_counter()
                    side.backward(numbers)
                    if block >= 0:
                        durations.append(time.perf_counter() - started)
        whole = median(seconds[max(seconds)])
        for limit, durations in seconds.items():
            case = f"{len(rows)} rows of sst2, {dtype}, {limit} positions a pass"
            now = median(durations)
            yield Line("passes", case, 1000 * now, 1000 * whole, "ms/step", now / whole)
