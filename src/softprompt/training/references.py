"""The reference log-probabilities of a preference task, computed once ahead of all steps.

They depend on the rows and the base alone, so runs side by side share them. A resumed run computes them
again, in the same batches: they are the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..cache import InputCache
from ..data.example import Example
from ..evaluation.evaluator import Evaluator
from .caches import first_needed
from .prepare import Prepared


def with_references(
    runs: Sequence[Prepared],
    evaluators: Sequence[Evaluator],
    cache: InputCache,
    dev_caches: Sequence[InputCache],
) -> list[Prepared]:
    """Return the runs with the references of their dev rows and of the training rows that steps will read.

    The base must still be as it was before training. `cache` holds the training inputs of all runs.
    """
    if all(run.encoder.kind != "preference" for run in runs):
        return list(runs)
    needed = list({_key(e): e for e in first_needed(runs)}.values())
    scored = evaluators[0].with_references(needed, cache.of(needed))
    known = {_key(example): example.reference for example in scored}
    return [
        replace(
            run,
            train=[replace(e, reference=known.get(_key(e))) for e in run.train],
            dev=evaluator.with_references(run.dev, dev_cache),
        )
        for run, evaluator, dev_cache in zip(runs, evaluators, dev_caches, strict=True)
    ]


def without_references(prepared: Prepared) -> Prepared:
    """Return the run with references of 0, for a step that is timed and whose result is not used."""
    if prepared.encoder.kind != "preference":
        return prepared
    parts = ([replace(e, reference=(0.0, 0.0)) for e in part] for part in (prepared.train, prepared.dev))
    train, dev = parts
    return replace(prepared, train=train, dev=dev)


def _key(example: Example) -> tuple:
    return example.input_ids, example.target_ids, example.rejected_ids
