"""The most memory that a training holds above the model is measured: of the GPU, else of the process."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import torch

from softprompt._system.memory import peak_memory


@dataclass
class Peak:
    """Holds the bytes above those that were held at the start."""

    bytes: int = 0


@contextlib.contextmanager
def peak() -> Iterator[Peak]:
    """Measure what is held inside. A processor has no record of that: the process's peak is taken."""
    result = Peak()
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        before = psutil.Process().memory_info().rss
    yield result
    result.bytes = max(0, (torch.cuda.max_memory_allocated() if on_gpu else peak_memory()) - before)
