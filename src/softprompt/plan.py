"""The freeze-aware plan: what is a constant is computed once.

Under a causal model nothing ahead of the first trained vector depends on it. Where everything
trained stands after the input, the input's keys and values are kept, and a step runs only
[last input token | prompt | target]. The plan decides that before a step is run, from what the
method injects (not from its name), the rows' lengths and the budgets of memory and disk, and can
print itself. What it decides on is in `softprompt.cache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .cache import Form, ram
from .cache.place import Place, distinct, key_of
from .cache.rows import bytes_needed, cached_tokens
from .cache.shards import missing
from .data.encode import Example
from .injection import Injection
from .lm.base import LanguageModel

Mode = Literal["cached-ram", "cached-disk", "recompute", "full"]
Wish = Literal["auto", "ram", "disk", "off"]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a step is computed, what it costs, and why. `str(plan)` is what `softprompt check` prints."""

    mode: Mode
    reason: str
    step_tokens: int  # positions that go through the model with gradient, a step of mean length
    prefill_tokens: int  # positions computed once (where cached) or every step (recompute)
    cache_bytes: int  # of the inputs' keys and values, were they all kept
    budget_bytes: int  # of the memory that they may take
    disk_bytes: int = 0  # of the disk that all caches together may take; 0 where it was not looked at
    folder: str | None = None  # of the cache on disk
    stored: bool = False  # earlier runs left all of it there

    @property
    def is_cached(self) -> bool:
        """Whether inputs are computed once."""
        return self.mode in ("cached-ram", "cached-disk")

    def __str__(self) -> str:
        lines = [f"plan: {self.mode}", f"  why: {self.reason}", f"  tokens a step: {self.step_tokens:,}"]
        if self.is_cached:
            when = "cached already" if self.stored else "cached once"
            lines.append(f"  {when}: {self.prefill_tokens:,} tokens, {_size(self.cache_bytes)}")
        if self.mode == "recompute":
            lines.append(f"  input tokens a step, without gradient: {self.prefill_tokens:,}")
        if self.folder is not None:
            lines.append(f"  folder of the cache: {self.folder}")
        lines.append(f"  memory budget of the cache: {_size(self.budget_bytes)}")
        if self.disk_bytes:
            lines.append(f"  disk budget of all caches: {_size(self.disk_bytes)}")
        return "\n".join(lines)


def decide(
    lm: LanguageModel,
    injection: Injection,
    examples: Sequence[Example],
    batch_size: int,
    *,
    cache: Wish = "auto",
    form: Form = "auto",
    budget_bytes: int | None = None,
    place: Place | None = None,
) -> Plan:
    """The cheapest mode that gives the same logits. `injection` is a sample of what the method makes.

    `form` is how keys and values are kept: int8 gives nearly the same. `place`: where caches lie on
    disk; None is the user's cache folder.
    """
    budget = ram.default_budget() if budget_bytes is None else budget_bytes
    inputs = sum(cached_tokens(e) for e in examples)
    rows = max(1, len(examples))
    targets = sum(max(len(e.target_ids), 1) for e in examples)
    soft_after = 0 if injection.after is None else injection.after.mask.shape[1]
    soft_before = 0 if injection.before is None else injection.before.mask.shape[1]
    needed = bytes_needed(lm, examples, form)
    if reason := _why_full(lm, injection):
        step = round(batch_size * ((inputs + targets) / rows + soft_after + soft_before))
        return Plan("full", reason, step, 0, needed, budget)
    step = round(batch_size * (targets / rows + soft_after))
    fits = "nothing trained stands ahead of or inside the input, and its KV fits in memory"
    kept = Plan("cached-ram", fits, step, inputs, needed, budget)
    again = replace(kept, mode="recompute", prefill_tokens=round(batch_size * inputs / rows))
    if cache == "off":
        return replace(again, reason="train.cache=off; the input runs without gradient each step")
    if cache != "disk" and needed <= budget:
        return kept
    if cache == "ram":
        return replace(again, reason=f"the inputs' KV would take {_size(needed)}, more than the budget")
    return _on_disk(kept, again, lm, examples, form, place or Place(), asked=cache == "disk")


def _why_full(lm: LanguageModel, injection: Injection) -> str:
    """Why no key or value of the inputs is a constant; empty where they are."""
    if not lm.is_frozen:
        return "the base model is trained too, so no key or value is a constant"
    if "cache" in lm.spec.limits:
        return f"this model cannot keep its inputs' keys and values: {lm.spec.limits['cache']}"
    ahead = [name for name in injection.channels() if name not in ("after", "kv_after")]
    if ahead:
        return f"the trained vectors ({', '.join(ahead)}) stand ahead of the input, which depends on them"
    return ""


def _on_disk(
    kept: Plan,
    again: Plan,
    lm: LanguageModel,
    examples: Sequence[Example],
    form: Form,
    place: Place,
    *,
    asked: bool,
) -> Plan:
    """`kept` on disk, or `again` where it does not fit there. An input that occurs twice is kept once."""
    inputs = distinct(examples)
    needed, budget = bytes_needed(lm, inputs, form), place.budget()
    if needed > budget:
        short = f"the inputs' KV would take {_size(needed)}, more than the budget of the disk"
        if not asked:
            short += " or of memory"
        return replace(again, reason=short, disk_bytes=budget)
    folder = place.folder(key_of(lm, form))
    why = "train.cache=disk" if asked else "it does not fit in memory, but on disk"
    return replace(
        kept,
        mode="cached-disk",
        reason=f"nothing trained stands ahead of or inside the input, and its KV is kept on disk: {why}",
        prefill_tokens=sum(map(cached_tokens, inputs)),
        cache_bytes=needed,
        disk_bytes=budget,
        folder=str(folder),
        stored=not missing(folder, inputs),
    )


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
