"""Conditions of a run that change only the rounding are recorded, and a resume reports their change.

`config.identity` holds what decides a run's numbers; a change there is refused. A change of the conditions
here is allowed; the result then agrees with that of an uninterrupted run to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

Way = Mapping[str, Any]  # by name, as a message shows it


def way(
    plan: str, prompts: int, device: torch.device | str, processes: int = 1, *, held: bool = False
) -> Way:
    """Record how steps are computed now: the plan, the threads, the prompts, the device, the processes.

    `held` says that weights are read from a form of them whose sums differ by rounding.
    """
    # the same numbers are read from memory and from disk
    shown = "cached" if plan.startswith("cached") else plan
    where = torch.device(device).type
    threads = torch.get_num_threads()
    return {
        "plan": shown,
        "threads": threads,
        "prompts": prompts,
        "device": where,
        "processes": processes,
        "weights": "held" if held else "plain",
        "torch": torch.__version__,
    }


def remark(ways: Sequence[Way]) -> str | None:
    """Write a sentence where the parts of a run were computed in several ways, otherwise None."""
    changes = {
        name: list(dict.fromkeys(str(way[name]) for way in ways if name in way))
        for name in dict.fromkeys(name for way in ways for name in way)
    }
    texts = [f"{name} {', then '.join(values)}" for name, values in changes.items() if len(values) > 1]
    if not texts:
        return None
    return (
        f"the parts of this run were computed differently ({'; '.join(texts)}), so its result agrees with "
        "that of an uninterrupted run to rounding, not to the byte"
    )
