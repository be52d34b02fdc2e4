"""The precision that this machine computes fast in, measured and not assumed.

A CPU either has bfloat16 products (AMX, AVX-512 BF16), several times as fast as float32's, or imitates
them several times as slowly. `MARGIN` lies in the gap between the two, so that a busy machine does not
choose one way today and another tomorrow: a checkpoint goes on in the precision that it began in only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from statistics import median
from typing import Literal

import torch

Dtype = Literal["float32", "bfloat16"]
MARGIN = 1.2  # times as fast as float32 bfloat16 must be
ROWS, INNER, OUTER = 256, 576, 1536  # of a small model's largest layer
FEW, MANY = 3, 9  # pairs of products: enough where they agree, and where they do not


def pick_dtype(device: str) -> tuple[Dtype, str]:
    """bfloat16 or float32 for this device, and why. Measured once in a process for a number of threads."""
    if device.startswith("cuda"):
        fast = torch.cuda.is_bf16_supported()
        return ("bfloat16" if fast else "float32"), f"the GPU has {'' if fast else 'no '}bfloat16 products"
    return _measured(torch.get_num_threads())


@lru_cache
def _measured(threads: int) -> tuple[Dtype, str]:
    ratio = speedup(product_seconds)
    said = f"matrix products in bfloat16 run at {ratio:.2g} times the rate of float32, measured on {threads} "
    return ("bfloat16" if ratio >= MARGIN else "float32"), said + ("thread" if threads == 1 else "threads")


def speedup(seconds: Callable[[torch.dtype], float]) -> float:
    """How many times as fast bfloat16 is: the median over pairs, run in turns after one pair to warm up.

    `seconds(dtype)` times one product. Whatever else the machine does meanwhile meets both of a pair.
    """
    for kind in (torch.float32, torch.bfloat16):
        seconds(kind)
    ratios: list[float] = []
    while len(ratios) < MANY:
        ratios.append(seconds(torch.float32) / max(seconds(torch.bfloat16), 1e-9))
        if len(ratios) >= FEW and len({ratio >= MARGIN for ratio in ratios}) == 1:
            break
    return median(ratios)


def product_seconds(kind: torch.dtype) -> float:
    """Of one layer's product, as a model computes it."""
    rows, weight = torch.ones(ROWS, INNER, dtype=kind), torch.ones(OUTER, INNER, dtype=kind)
    start = time.perf_counter()
    torch.nn.functional.linear(rows, weight)
    return time.perf_counter() - start
