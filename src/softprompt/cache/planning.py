"""The freeze-aware plan is made here: constants of the inputs are computed once.

Under a causal model nothing ahead of the first trained vector depends on it. Where all trained vectors come
after the input, the input's keys and values are kept, and a step runs only [last input token | prompt |
target]. The features that a generated prompt reads are constants wherever the prompt is placed. The plan is
made before the first step, from what the method injects and reads (not from its name), the rows' lengths,
and the budgets of memory and disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch

from ..config.schema import Recipe
from ..data.collate import collate
from ..data.example import Example
from ..injection import Injection
from ..lm import held_weights
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..lm.features import is_constant
from ..methods.base import Reads, SoftPrompt
from . import Form, InputFeatures, KeyValues, common_beginning, memory_store
from .base import Constant, distinct
from .folders import CacheFolder, cache_place
from .kv import cached_tokens
from .plan import Keeping, Plan, size
from .shards import missing

Wish = Literal["auto", "ram", "disk", "off"]
Checkpointing = bool | Literal["auto"]
STEP_SHARE = 0.8  # of the memory that is free: what a step may take, beside the cache


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
    steps: int = 0,
) -> Plan:
    """Choose the cheapest mode that gives the same logits. `injection` is a sample of the method's output.

    `needed` are the examples that will be read, if not all of them: only these are kept. `reads` is the part
    of the input that the method reads. `batch_size` is the number of rows in a step. Under the form int8,
    logits are nearly the same. `place` is the folder of caches on disk; None is the user's cache folder.
    `steps` is the length of the run, which decides whether a CPU holds its weights in another form.
    """
    budget = memory_store.default_budget(str(lm.device)) if budget_bytes is None else budget_bytes
    needed = examples if needed is None else needed
    place, features = place or CacheFolder(), None
    inputs = sum(cached_tokens(e) for e in examples)
    rows = max(1, len(examples))
    targets = sum(max(e.answer_tokens, 1) for e in examples)
    sides = sum(len(e.answers) for e in examples) / rows  # rows of the batch that a row takes
    soft_after = 0 if injection.after is None else injection.after.mask.shape[1]
    soft_before = 0 if injection.before is None else injection.before.mask.shape[1]
    if reads is not None and is_constant(lm, reads) and not lm.is_sharded:
        # features come first: they take fewer bytes than keys and values, and save as much of a step
        features = _keep(InputFeatures(lm, reads), needed, cache, budget, place)
    taken = (0, 0) if features is None else _taken(features)
    cached_step = round(batch_size * (targets / rows + sides * soft_after))
    # the beginning of all examples, so that runs of other steps find the same rows on disk
    rounds = partial(held_weights.will_round, lm, cached_step, steps)
    kv = KeyValues(lm, form, common_beginning(lm, examples), rounds)
    whole = Plan("full", "", 0, 0, kv.bytes_needed(distinct(kv, needed)), budget, features=features)
    if reason := _why_full(lm, injection):
        soft = soft_after + soft_before
        step = round(batch_size * ((sides * inputs + targets) / rows + sides * soft))
        return replace(whole, reason=reason, step_tokens=step, soft_tokens=soft)
    kv_keeping = _keep(kv, needed, cache, budget - taken[0], place, taken[1])
    plan = replace(
        whole,
        step_tokens=cached_step,
        soft_tokens=soft_after,
        disk_bytes=kv_keeping.disk_bytes,
        folder=kv_keeping.folder,
        stored=kv_keeping.stored,
    )
    if kv_keeping.where == "nowhere":
        if cache == "off":
            reason = "train.cache=off; the input runs without gradient each step"
        else:
            reason = f"the inputs' KV {kv_keeping.reason}"
        return replace(
            plan, mode="recompute", reason=reason, prefill_tokens=round(batch_size * sides * inputs / rows)
        )
    reason = f"nothing trained is ahead of or inside the input, and its KV {kv_keeping.reason}"
    mode = "cached-ram" if kv_keeping.where == "ram" else "cached-disk"
    return replace(plan, mode=mode, reason=reason, prefill_tokens=kv_keeping.tokens)


def with_checkpointing(
    plan: Plan, wish: Checkpointing, backward_bytes: int, free_bytes: int, *, possible: bool = True
) -> Plan:
    """Add gradient checkpointing to a plan, as requested or (auto) where memory is short without it.

    `backward_bytes` are kept by a step over the largest batch; `free_bytes` of memory are free before
    anything is cached. `possible` is False where the model cannot be checkpointed.
    """
    plan = replace(plan, backward_bytes=backward_bytes)
    if wish != "auto":
        return replace(plan, checkpointing=wish, checkpointing_reason="as asked for")
    if not backward_bytes:
        return plan
    budget = int(STEP_SHARE * free_bytes)
    short = plan.ram_bytes + backward_bytes > budget
    needs = f"{size(backward_bytes)} and the cache's {size(plan.ram_bytes)}"
    reason = f"{needs} are {'more' if short else 'less'} than {STEP_SHARE:.0%} of the free {size(free_bytes)}"
    if short and not possible:
        return replace(plan, checkpointing_reason=f"{reason}, but transformers has none for this family")
    return replace(plan, checkpointing=short, checkpointing_reason=reason)


def _why_full(lm: LanguageModel, injection: Injection) -> str:
    """Explain why keys and values of the inputs are no constants; empty where they are."""
    if lm.is_sharded:
        return "the base model is split over devices, which must run it equally often: nothing is kept"
    if not lm.is_frozen:
        return "the base model is trained too, so no key or value is a constant"
    if "cache" in lm.spec.limits:
        return f"this model cannot keep its inputs' keys and values: {lm.spec.limits['cache']}"
    ahead = [name for name in injection.channels() if name not in ("after", "kv_after")]
    if ahead:
        return f"the trained vectors ({', '.join(ahead)}) are ahead of the input, which depends on them"
    return ""


def _keep(
    kept: Constant,
    examples: Sequence[Example],
    wish: Wish,
    budget: int,
    place: CacheFolder,
    disk_taken: int = 0,
) -> Keeping:
    """Find room for `kept`: in memory, else on disk, else nowhere. Nothing is written."""
    inputs = distinct(kept, examples)
    needed, tokens = kept.bytes_needed(inputs), sum(map(kept.tokens, inputs))
    if wish == "off":
        return Keeping(kept.content, "nowhere", "train.cache=off", tokens, needed)
    if wish != "disk" and needed <= budget:
        return Keeping(kept.content, "ram", "fits in memory", tokens, needed)
    if wish == "ram":
        short = f"would take {size(needed)}, more than the budget"
        return Keeping(kept.content, "nowhere", short, tokens, needed)
    room = place.budget()
    if needed > room - disk_taken:
        short = f"would take {size(needed)}, more than the budget of the disk"
        short += "" if wish == "disk" else " or of memory"
        return Keeping(kept.content, "nowhere", short, tokens, needed, room)
    folder = place.folder(kept.key)
    why = "train.cache=disk" if wish == "disk" else "it does not fit in memory, but on disk"
    stored = not missing(folder, [kept.name(e) for e in inputs])
    return Keeping(kept.content, "disk", f"is kept on disk: {why}", tokens, needed, room, str(folder), stored)


def _taken(features: Keeping) -> tuple[int, int]:
    """Return the bytes that features take in memory and on disk."""
    return tuple(features.bytes if features.where == where else 0 for where in ("ram", "disk"))  # type: ignore[return-value]


def plan_inputs(
    recipe: Recipe,
    lm: LanguageModel,
    method: SoftPrompt,
    examples: Sequence[Example],
    rows: int,
    needed: Sequence[Example] | None = None,
) -> Plan:
    """Plan the caches of a recipe's inputs. A step has `rows` rows; for `needed` see `decide`."""
    options = recipe.train
    with torch.no_grad():
        injection = injection_for(lm, method, collate(examples[:1], lm.device))
    return decide(
        lm,
        injection,
        examples,
        rows,
        needed=needed,
        reads=method.reads,
        cache=options.cache,
        form=options.cache_dtype,
        budget_bytes=None if options.cache_budget_mb is None else options.cache_budget_mb * 10**6,
        place=cache_place(recipe),
        steps=options.steps,
    )
