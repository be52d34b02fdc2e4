"""The freeze-aware plan: what is a constant is computed once.

Under a causal model nothing ahead of the first trained vector depends on it. Where everything
trained stands after the input, the input's keys and values are kept, and a step runs only
[last input token | prompt | target]. What a generated prompt reads of the input is a constant wherever
the prompt stands. The plan decides that before a step is run, from what the method injects and reads
(not from its name), the rows' lengths and the budgets of memory and disk, and can print itself. What it
decides on is in `softprompt.cache`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from ..config.schema import Recipe
from ..data.collate import collate
from ..data.example import Example
from ..injection import Injection
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..lm.features import is_constant
from ..methods.base import Reads, SoftPrompt
from . import Form, InputFeatures, KeyValues, common_beginning, memory_store, plan
from .base import Constant, distinct
from .folders import CacheFolder, cache_place
from .kv import cached_tokens
from .shards import missing

Mode = Literal["cached-ram", "cached-disk", "recompute", "full"]
Wish = Literal["auto", "ram", "disk", "off"]
Where = Literal["ram", "disk", "nowhere"]
Checkpointing = bool | Literal["auto"]
STEP_SHARE = 0.8  # of the memory that is free: what a step may take, beside the cache


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where a constant of the inputs is kept, and why there. Every distinct input is kept once."""

    what: str
    where: Where
    reason: str
    tokens: int  # positions
    bytes: int
    disk_bytes: int = 0  # of the disk that all caches together may take; 0 where it was not looked at
    folder: str | None = None  # on disk
    stored: bool = False  # earlier runs left all of it there

    def __str__(self) -> str:
        if self.where == "nowhere":
            return f"{self.what}: computed each step ({self.reason})"
        at = "in memory" if self.where == "ram" else f"on disk, in {self.folder}"
        when = "already" if self.stored else "once"
        return f"{self.what}: cached {when} {at}, {self.tokens:,} tokens, {size(self.bytes)}"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a step is computed, what it costs, and why. `str(plan)` is what `softprompt check` prints."""

    mode: Mode
    reason: str
    step_tokens: int  # positions that go through the model with gradient, a step of mean length
    prefill_tokens: int  # positions computed once (where cached) or every step (recompute)
    cache_bytes: int  # of the inputs' keys and values, were they all kept
    budget_bytes: int  # of the memory that all that is kept may take
    soft_tokens: int = 0  # of the step's positions, those of the prompt, a row
    disk_bytes: int = 0  # of the disk that all caches together may take; 0 where it was not looked at
    folder: str | None = None  # of the cache on disk
    stored: bool = False  # earlier runs left all of it there
    features: Keeping | None = None  # what a generated prompt reads, where that is a constant
    backward_bytes: int = 0  # that a step over the largest batch keeps for its backward pass; 0: not measured
    checkpointing: bool = False  # these are computed again instead
    checkpointing_reason: str = ""

    @property
    def is_cached(self) -> bool:
        """Whether inputs are computed once."""
        return self.mode in ("cached-ram", "cached-disk")

    @property
    def ram_bytes(self) -> int:
        """Memory that all that is kept takes."""
        features = self.features.bytes if self.features and self.features.where == "ram" else 0
        return features + (self.cache_bytes if self.mode == "cached-ram" else 0)

    def __str__(self) -> str:
        lines = [f"plan: {self.mode}", f"  why: {self.reason}", f"  tokens a step: {self.step_tokens:,}"]
        if self.is_cached:
            when = "cached already" if self.stored else "cached once"
            lines.append(f"  {when}: {self.prefill_tokens:,} tokens, {size(self.cache_bytes)}")
        if self.mode == "recompute":
            lines.append(f"  input tokens a step, without gradient: {self.prefill_tokens:,}")
        if self.folder is not None:
            lines.append(f"  folder of the cache: {self.folder}")
        if self.features is not None:
            lines.append(f"  {self.features}")
        lines.append(f"  memory budget of the cache: {size(self.budget_bytes)}")
        if disk := self.disk_bytes or (self.features and self.features.disk_bytes):
            lines.append(f"  disk budget of all caches: {size(disk)}")
        if self.backward_bytes:
            lines.append(f"  kept for the backward pass, at most: {size(self.backward_bytes)}")
        if self.checkpointing_reason:
            on = "on" if self.checkpointing else "off"
            lines.append(f"  gradient checkpointing: {on}, {self.checkpointing_reason}")
        return "\n".join(lines)


def decide(
    lm: LanguageModel,
    injection: Injection,
    examples: Sequence[Example],
    batch_size: int,
    *,
    needed: Sequence[Example] | None = None,
    reads: Reads | None = None,
    cache: Wish = "auto",
    form: Form = "auto",
    budget_bytes: int | None = None,
    place: CacheFolder | None = None,
) -> Plan:
    """The cheapest mode that gives the same logits. `injection` is a sample of what the method makes.

    `needed` are those of the examples that will be asked for, where that is not all: nothing else is kept.
    `reads` is what the method reads of the input. `batch_size`: rows a step. `form` is how keys and values
    are kept: int8 gives nearly the same. `place`: where caches lie on disk; None is the user's cache folder.
    """
    budget = memory_store.default_budget(str(lm.device)) if budget_bytes is None else budget_bytes
    needed = examples if needed is None else needed
    place, features = place or CacheFolder(), None
    inputs = sum(cached_tokens(e) for e in examples)
    rows = max(1, len(examples))
    targets = sum(max(len(e.target_ids), 1) for e in examples)
    soft_after = 0 if injection.after is None else injection.after.mask.shape[1]
    soft_before = 0 if injection.before is None else injection.before.mask.shape[1]
    if reads is not None and is_constant(lm, reads):
        # first: of a fraction of the bytes, and worth as much of a step
        features = _keep(InputFeatures(lm, reads), needed, cache, budget, place)
    taken = (0, 0) if features is None else _taken(features)
    # of all, so that runs of other steps find the same rows on disk
    kv = KeyValues(lm, form, common_beginning(lm, examples))
    whole = Plan("full", "", 0, 0, kv.bytes_needed(distinct(kv, needed)), budget, features=features)
    if reason := _why_full(lm, injection):
        soft = soft_after + soft_before
        step = round(batch_size * ((inputs + targets) / rows + soft))
        return replace(whole, reason=reason, step_tokens=step, soft_tokens=soft)
    found = _keep(kv, needed, cache, budget - taken[0], place, taken[1])
    plan = replace(
        whole,
        step_tokens=round(batch_size * (targets / rows + soft_after)),
        soft_tokens=soft_after,
        disk_bytes=found.disk_bytes,
        folder=found.folder,
        stored=found.stored,
    )
    if found.where == "nowhere":
        if cache == "off":
            reason = "train.cache=off; the input runs without gradient each step"
        else:
            reason = f"the inputs' KV {found.reason}"
        return replace(
            plan, mode="recompute", reason=reason, prefill_tokens=round(batch_size * inputs / rows)
        )
    reason = f"nothing trained stands ahead of or inside the input, and its KV {found.reason}"
    mode = "cached-ram" if found.where == "ram" else "cached-disk"
    return replace(plan, mode=mode, reason=reason, prefill_tokens=found.tokens)


def with_checkpointing(
    plan: Plan, wish: Checkpointing, backward_bytes: int, free_bytes: int, *, possible: bool = True
) -> Plan:
    """`plan` with gradient checkpointing as asked for, or (auto) where memory is short without.

    `backward_bytes`: what a step over the largest batch keeps; `free_bytes`: memory that is free before
    anything is cached. `possible`: whether the model can be checkpointed.
    """
    plan = replace(plan, backward_bytes=backward_bytes)
    if wish != "auto":
        return replace(plan, checkpointing=wish, checkpointing_reason="as asked for")
    if not backward_bytes:
        return plan
    budget = int(STEP_SHARE * free_bytes)
    short = plan.ram_bytes + backward_bytes > budget
    what = f"{size(backward_bytes)} and the cache's {size(plan.ram_bytes)}"
    reason = f"{what} are {'more' if short else 'less'} than {STEP_SHARE:.0%} of the free {size(free_bytes)}"
    if short and not possible:
        return replace(plan, checkpointing_reason=f"{reason}, but transformers has none for this family")
    return replace(plan, checkpointing=short, checkpointing_reason=reason)


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


def _keep(
    kept: Constant,
    examples: Sequence[Example],
    wish: Wish,
    budget: int,
    place: CacheFolder,
    disk_taken: int = 0,
) -> Keeping:
    """Where `kept` has room: in memory, else on disk, else nowhere. The disk is not touched."""
    inputs = distinct(kept, examples)
    needed, tokens = kept.bytes_needed(inputs), sum(map(kept.tokens, inputs))
    if wish == "off":
        return Keeping(kept.what, "nowhere", "train.cache=off", tokens, needed)
    if wish != "disk" and needed <= budget:
        return Keeping(kept.what, "ram", "fits in memory", tokens, needed)
    if wish == "ram":
        short = f"would take {size(needed)}, more than the budget"
        return Keeping(kept.what, "nowhere", short, tokens, needed)
    room = place.budget()
    if needed > room - disk_taken:
        short = f"would take {size(needed)}, more than the budget of the disk"
        short += "" if wish == "disk" else " or of memory"
        return Keeping(kept.what, "nowhere", short, tokens, needed, room)
    folder = place.folder(kept.key)
    why = "train.cache=disk" if wish == "disk" else "it does not fit in memory, but on disk"
    stored = not missing(folder, [kept.name(e) for e in inputs])
    return Keeping(kept.what, "disk", f"is kept on disk: {why}", tokens, needed, room, str(folder), stored)


def _taken(features: Keeping) -> tuple[int, int]:
    """Bytes of memory and of the disk."""
    return tuple(features.bytes if features.where == where else 0 for where in ("ram", "disk"))  # type: ignore[return-value]


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def plan_inputs(
    recipe: Recipe,
    lm: LanguageModel,
    method: SoftPrompt,
    examples: Sequence[Example],
    rows: int,
    needed: Sequence[Example] | None = None,
) -> plan.Plan:
    """What is kept of inputs, and where; `rows` go through the model in a step. For `needed` see `decide`."""
    how = recipe.train
    with torch.no_grad():
        injection = injection_for(lm, method, collate(examples[:1], lm.device))
    return plan.decide(
        lm,
        injection,
        examples,
        rows,
        needed=needed,
        reads=method.reads,
        cache=how.cache,
        form=how.cache_dtype,
        budget_bytes=None if how.cache_budget_mb is None else how.cache_budget_mb * 10**6,
        place=cache_place(recipe),
    )
