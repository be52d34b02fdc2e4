"""The cost of a run is estimated before anything is trained, and the cost of the next slower plan.

Steps and an evaluation are timed on this machine (`step_timing`). Nothing here prints or writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .._system.memory import free_memory, peak_memory
from ..cache import InputFeatures, KeyValues, common_beginning, memory_store
from ..cache.plan import Plan, size
from ..data.example import Example
from ..evaluation.evaluator import evaluator_of
from .activation_memory import (
    Shape,
    backward_bytes,
    checkpointed_bytes,
    largest_batch,
    without_checkpointing,
)
from .caches import first_needed, open_caches
from .prepare import Prepared
from .references import without_references
from .step_timing import in_memory, median_seconds, spread, step_seconds, typical_batch
from .trained import artifact_bytes
from .tune import TEXT_ROWS, optimization

TEXT_TOKENS = 8  # generated while measuring


@dataclass(frozen=True, slots=True)
class Slower:
    """Describes the next slower plan that computes the same, and its cost."""

    name: str
    step_seconds: float  # 0 where it was not tried
    seconds: float  # of the whole run
    memory_bytes: int
    note: str = ""  # why it was not tried


@dataclass(frozen=True, slots=True)
class Price:
    """Measured seconds, and estimates for the whole run that are based on them."""

    batch_rows: int  # of the measured step
    batch_tokens: int  # inputs and targets
    step_seconds: float
    steps: int
    cache_seconds: float  # once; 0 where nothing is cached
    evaluation_seconds: float  # all dev rows, once
    evaluations: int  # while training, and of the plain model and the best prompt
    text_seconds: float  # writing the dev rows' texts, by the plain model and by the tuned one
    memory_bytes: int  # largest resident size
    artifact_bytes: int
    trained_parameters: int
    slower: Slower | None = None  # None: there is none
    reference_seconds: float = 0.0  # of a preference task, once: all rows through the model without vectors
    faster: str = ""  # what a faster plan would need; empty where there is none

    @property
    def seconds(self) -> float:
        """Predict the time of the whole run, without reading rows and loading the model."""
        steps = self.steps * self.step_seconds
        once = self.cache_seconds + self.reference_seconds + self.text_seconds
        return once + steps + self.evaluations * self.evaluation_seconds

    def to_json(self) -> dict[str, Any]:
        """Return all numbers, and the predicted total as `seconds`."""
        return asdict(self) | {"seconds": self.seconds}


def measure(prepared: Prepared, *, slower: bool = True) -> Price:
    """Time one step and one evaluation of `prepared`, and a step of the next slower plan; change nothing."""
    numbers, trains = optimization(prepared.recipe), prepared.trained_parameters > 0
    rows = typical_batch(prepared.train, numbers)
    step = step_seconds(prepared, rows) if trains else 0.0
    evaluation_seconds, text_seconds = evaluating(prepared)
    price = Price(
        batch_rows=len(rows),
        batch_tokens=_tokens(rows) + sum(e.answer_tokens for e in rows),
        step_seconds=step,
        steps=numbers.steps,
        cache_seconds=cache_seconds(prepared, rows),
        evaluation_seconds=evaluation_seconds,
        evaluations=numbers.evaluations_after(0) + 2,
        text_seconds=2 * text_seconds,
        memory_bytes=peak_memory() + prepared.plan.ram_bytes,
        artifact_bytes=artifact_bytes(prepared.lm, prepared.method),
        trained_parameters=prepared.trained_parameters,
        faster=faster(prepared),
        reference_seconds=reference_seconds(prepared, evaluation_seconds),
    )
    return replace(price, slower=_slower(prepared, rows, price)) if trains and slower else price


def evaluating(prepared: Prepared) -> tuple[float, float]:
    """Time the scoring of all dev rows, and the writing of their texts (0 where none are written)."""
    dev = spread(without_references(prepared).dev, 32)
    (dev_cache,), _ = open_caches(in_memory(prepared), [dev])
    evaluator = evaluator_of(prepared.recipe, prepared.lm, prepared.encoder)
    once = median_seconds(lambda: evaluator.run(prepared.method, dev, cache=dev_cache, text_rows=0))
    text_seconds = 0.0
    if prepared.encoder.kind == "generation":
        tokens = min(TEXT_TOKENS, evaluator.max_new_tokens)
        started = time.perf_counter()
        replace(evaluator, max_new_tokens=tokens).run(prepared.method, dev, cache=dev_cache)
        written = max(0.0, time.perf_counter() - started - once)
        batches = min(TEXT_ROWS, len(prepared.dev)) / len(dev)
        text_seconds = written * batches * evaluator.max_new_tokens / tokens
    return once * _tokens(prepared.dev) / _tokens(dev), text_seconds


def reference_seconds(prepared: Prepared, evaluation_seconds: float) -> float:
    """Predict the seconds of the reference model on all rows, from those of scoring the dev rows once."""
    if prepared.encoder.kind != "preference":
        return 0.0
    needed = list(first_needed([prepared]))
    return evaluation_seconds * (1 + _tokens(needed) / _tokens(prepared.dev))


def faster(prepared: Prepared) -> str:
    """Say what a faster plan than `prepared`'s would need; empty where there is none."""
    chosen, lm = prepared.plan, prepared.lm
    needed = chosen.ram_bytes + chosen.cache_bytes
    if chosen.mode == "full" and not lm.is_frozen:
        return f"with base=frozen and placement=after, inputs would be cached: {size(chosen.cache_bytes)}"
    if chosen.mode == "full" and "cache" not in lm.spec.limits:
        placement = prepared.recipe.method.options().get("placement")
        change = "placement=after" if placement != "after" else "a method that is only placed after the input"
        return f"with {change}, inputs would be cached: {size(chosen.cache_bytes)}"
    if chosen.mode in ("recompute", "cached-disk") and prepared.recipe.train.cache != "auto":
        return "with train.cache=auto, inputs are cached where they fit"
    if chosen.mode in ("recompute", "cached-disk"):
        more = size(max(0, needed - chosen.budget_bytes))
        wish = f"train.cache_budget_mb={-(-needed // 10**6)}"
        return f"with {more} more for the cache ({wish}), inputs would be kept in memory"
    if chosen.checkpointing:
        return f"with memory for {size(chosen.backward_bytes)} a step, layers would not be computed twice"
    return ""


def _slower(prepared: Prepared, rows: Sequence[Example], price: Price) -> Slower | None:
    """Measure the next slower plan on the same rows; None where there is none."""
    lm, config = prepared.lm, prepared.recipe.train
    shape = largest_batch(prepared.train, config.batch_size, config.batch_tokens)
    kept = prepared.plan.backward_bytes or _backward(prepared, prepared.plan, shape)
    candidate = _next_slower(prepared, shape, kept)
    if candidate is None:
        return None
    name, plan, more = candidate
    memory = max(0, price.memory_bytes + more)
    if more > free_memory(str(lm.device)):
        return Slower(name, 0.0, 0.0, memory, "not tried: more than is free")
    with without_checkpointing(lm):
        lm.set_gradient_checkpointing(plan.checkpointing)
        seconds = step_seconds(replace(prepared, plan=plan), rows, repeats=2)
    whole = price.seconds + price.steps * (seconds - price.step_seconds)
    if prepared.plan.is_cached:
        # what is kept of the dev rows is computed at every evaluation instead of once
        share = _tokens(prepared.dev) / max(1, prepared.plan.prefill_tokens)
        whole += price.cache_seconds * (price.evaluations * min(1.0, share) - 1)
    return Slower(name, seconds, whole, memory)


def _next_slower(prepared: Prepared, shape: Shape, kept: int) -> tuple[str, Plan, int] | None:
    """Return its name, the plan, and the bytes that it takes in addition to the present plan."""
    chosen, lm = prepared.plan, prepared.lm
    if chosen.is_cached:
        freed = chosen.cache_bytes if chosen.mode == "cached-ram" else 0
        return "recompute", replace(chosen, mode="recompute"), -freed
    if chosen.mode == "recompute":
        full = replace(chosen, mode="full")
        return "full", full, _backward(prepared, full, shape) - kept
    if chosen.checkpointing or not lm.checkpointable_layers:
        return None
    less = kept - checkpointed_bytes(lm, shape, kept)
    return "full, with gradient checkpointing", replace(chosen, checkpointing=True), -less


def _backward(prepared: Prepared, plan: Plan, shape: Shape) -> int:
    return backward_bytes(prepared.lm, prepared.method, shape, full=plan.mode == "full")


@dataclass(frozen=True)
class CacheBuild:
    """A cache of the inputs that a run builds: of which tokens, at which pace, and where it is kept."""

    tokens: int  # of all inputs that it keeps
    token_seconds: float
    tokens_of: Callable[[Sequence[Example]], int]
    folder: str | None  # None: in memory
    stored: bool  # earlier runs have written all of it


def cache_seconds(prepared: Prepared, rows: Sequence[Example]) -> float:
    """Predict the seconds of computing all rows of the caches that are missing, from the time of `rows`."""
    builds = cache_builds(prepared, rows, missing_only=True)
    return sum(build.token_seconds * build.tokens for build in builds)


def cache_builds(
    prepared: Prepared, rows: Sequence[Example], *, missing_only: bool = False
) -> list[CacheBuild]:
    """Time the building of each cache of the plan on `rows`; those on disk too, unless `missing_only`."""
    chosen, lm, kinds = prepared.plan, prepared.lm, []
    if chosen.is_cached and not (chosen.stored and missing_only):
        kv = KeyValues(lm, prepared.recipe.train.cache_dtype, common_beginning(lm, rows))
        kinds.append((kv, chosen.prefill_tokens, chosen.folder, chosen.stored))
    features = chosen.features
    if features and features.where != "nowhere" and not (features.stored and missing_only):
        assert prepared.method.reads is not None
        kept = InputFeatures(lm, prepared.method.reads)
        kinds.append((kept, features.tokens, features.folder, features.stored))
    builds = []
    for kept, tokens, folder, stored in kinds:
        memory_store.build(kept, rows[:1])
        once = median_seconds(lambda kept=kept: memory_store.build(kept, rows))

        def tokens_of(examples: Sequence[Example], kept: Any = kept) -> int:
            return sum(map(kept.tokens, examples))

        builds.append(CacheBuild(tokens, once / max(1, tokens_of(rows)), tokens_of, folder, stored))
    return builds


def _tokens(examples: Sequence[Example]) -> int:
    return sum(len(e.input_ids) for e in examples)
