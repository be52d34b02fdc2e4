"""Show with torch's profiler where the time of a step goes: in operations and between them.

The time between operations is Python, autograd and dispatch; a step that it dominates gains from a shared
pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from torch.profiler import ProfilerActivity, profile

import softprompt
from softprompt.cache import KeyValues, memory_store

from .line import Line
from .options import Options
from .ours import Ours, kept, train
from .rows import encoded

KINDS = {
    "products with weights": ("mm", "addmm", "linear", "mkldnn_linear"),
    "products of attention": ("bmm", "baddbmm", "_scaled_dot_product_flash_attention_for_cpu"),
    "copies": ("copy_", "cat", "index", "clone", "gather", "stack", "fill_", "zero_", "index_select"),
}


def measure(options: Options) -> Iterator[Line]:
    """Measure shares of a step's wall time; each kind of step has a line."""
    for dtype in options.dtypes:
        for case, step in _steps(options, dtype).items():
            yield _line(f"{case}, {dtype}", step)


def _steps(options: Options, dtype: str) -> dict[str, Callable[[], Any]]:
    """Return the steps to profile by name."""
    lm = softprompt.load(options.model, dtype=dtype)
    size = options.batch
    rows = encoded(options.data, "sst2", 16 * size, lm.tokenizer)
    full, cache = Ours(lm, "prompt-tuning", rows), kept(lm, rows)
    cached = [Ours(lm, "prefix-tuning", rows, "cached", cache) for _ in range(options.prompts)]
    numbers = [list(range(8)) for _ in cached]
    return {
        f"full, {size} rows": lambda: full.backward(range(size)),
        "cached, 8 rows": lambda: cached[0].backward(range(8)),
        f"cached, {8 * size} rows": lambda: cached[0].backward(range(8 * size)),
        f"{len(cached)} prompts × 8 rows in one run": lambda: train(cached, numbers, 1, 8),
        "building the cache": lambda: memory_store.build(KeyValues(lm), rows[: 2 * size]),
    }


def _line(case: str, step: Callable[[], Any]) -> Line:
    step()  # warm
    started = time.perf_counter()
    step()
    seconds = time.perf_counter() - started
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        started = time.perf_counter()
        step()
        whole = time.perf_counter() - started
    events = profiled.key_averages()
    own_time = {event.key.removeprefix("aten::"): event.self_cpu_time_total / 1e6 for event in events}
    known = {kind: sum(own_time.get(name, 0.0) for name in names) / whole for kind, names in KINDS.items()}
    ran = sum(e.self_cpu_time_total for e in events if e.key.startswith("aten::")) / 1e6 / whole
    shares = {**known, "other operations": ran - sum(known.values()), "between operations": 1 - ran}
    note = ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())
    return Line("shares", case, 1000 * seconds, None, "ms", note=note)
