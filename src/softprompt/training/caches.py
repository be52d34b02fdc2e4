"""The caches of the inputs of one run, or of several runs side by side over one base model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

from ..cache import InputCache, open
from ..cache.folders import cache_place
from ..data.example import Example
from .decisive import optimization
from .prepare import Prepared, make_plan
from .sampler import BatchSampler, row_lengths


def open_caches(
    prepared: Prepared,
    lists: Sequence[Sequence[Example]],
    *,
    first: Sequence[Example] = (),
    needed: Sequence[Example] | None = None,
    progress: open.Progress = lambda done, total: None,
    say: open.Say = lambda text: None,
) -> tuple[list[InputCache], Prepared]:
    """Open a cache for each list of examples; also return the run with the plan that results.

    For `first` and `needed` see `cache.open.open_inputs`.
    """
    caches, plan = open.open_inputs(
        prepared.plan,
        prepared.lm,
        lists,
        first=first,
        needed=needed,
        reads=prepared.method.reads,
        form=prepared.recipe.train.cache_dtype,
        place=cache_place(prepared.recipe),
        progress=progress,
        say=say,
    )
    return caches, replace(prepared, plan=plan)


def leading(runs: Sequence[Prepared]) -> Prepared:
    """The run whose caches serve all runs: one that keeps keys and values if any does, else features."""
    return max(runs, key=lambda run: (run.plan.mode != "full", run.method.reads is not None))


def open_shared_caches(
    runs: Sequence[Prepared], *, progress: open.Progress, say: open.Say
) -> tuple[list[Prepared], InputCache, list[InputCache]]:
    """Open one cache of the training inputs of all runs, in their order, and one of each run's dev inputs.

    Also return the runs with the plans that result.
    """
    # a cache of keys and values serves all whose inputs are constants, one of features all that read the same
    first = leading(runs)
    train = [example for run in runs for example in run.train]
    dev, needed = [example for run in runs for example in run.dev], list(first_needed(runs))
    if len(runs) > 1:
        plan = make_plan(first.recipe, first.lm, first.method, train, dev, needed)
        first.lm.set_gradient_checkpointing(plan.checkpointing)
        first = replace(first, plan=plan)
    lists = [train, *(run.dev for run in runs)]
    (cache, *dev_caches), first = open_caches(
        first, lists, first=needed, needed=[*needed, *dev], progress=progress, say=say
    )
    planned = [_with_plan(run, first) for run in runs]
    # the keys and values of a "full" run are no constants, whatever the other runs keep
    dev_caches = [
        replace(dev_cache, contexts=None) if run.plan.mode == "full" else dev_cache
        for run, dev_cache in zip(planned, dev_caches, strict=True)
    ]
    return planned, cache, dev_caches


def _with_plan(run: Prepared, first: Prepared) -> Prepared:
    if run.plan.mode == "full":
        return run
    tokens = {"step_tokens": run.plan.step_tokens, "soft_tokens": run.plan.soft_tokens}
    return replace(run, plan=replace(first.plan, **tokens))


def first_needed(runs: Sequence[Prepared]) -> Iterator[Example]:
    """Yield the training rows that steps will read, in about the order in which the steps need them."""
    batches_by_run = []
    for run in runs:
        numbers = optimization(run.recipe)
        sampler = BatchSampler(
            row_lengths(run.train, numbers.batch_tokens),
            numbers.batch_size,
            numbers.seed,
            numbers.batch_tokens,
        )
        rows = [run.train[i] for i in sampler.needed(numbers.steps)]
        size = max(1, sampler.size)
        batches_by_run.append([rows[start : start + size] for start in range(0, len(rows), size)])
    for batches in zip_longest(*batches_by_run, fillvalue=()):
        for batch in batches:
            yield from batch
