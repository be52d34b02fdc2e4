"""How a run's steps are computed where that decides only the rounding, and what a resume says of a change.

`identity` holds what decides a run's numbers; such a change is refused. A change of what is listed here is
allowed, and the result then agrees with that of an uninterrupted run to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

Way = Mapping[str, Any]  # by name, as a message shows it


def way(plan: str, prompts: int, device: torch.device | str) -> Way:
    """How steps are computed now: under which plan, with how many prompts in the run, on what."""
    # the same numbers are read from memory and from disk
    shown = "cached" if plan.startswith("cached") else plan
    where = torch.device(device).type
    threads = torch.get_num_threads()
    return {
        "plan": shown,
        "threads": threads,
        "prompts": prompts,
        "device": where,
        "torch": torch.__version__,
    }


def remark(ways: Sequence[Way]) -> str | None:
    """One sentence where a run's parts were computed in several ways; None where there was one way."""
    changes = {
        name: list(dict.fromkeys(str(one[name]) for one in ways if name in one))
        for name in dict.fromkeys(name for one in ways for name in one)
    }
    told = [f"{name} {', then '.join(values)}" for name, values in changes.items() if len(values) > 1]
    if not told:
        return None
    return (
        f"the parts of this run were computed differently ({'; '.join(told)}), so its result agrees with "
        "that of an uninterrupted run to rounding, not to the byte"
    )
