"""Opens the caches of a plan; where there is no room for one after all, the plan changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from .._system.progress import task
from ..data.example import Example
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from ..methods.base import Reads
from . import Cache, Form, InputCache, InputFeatures, KeyValues, common_beginning, disk_store, memory_store
from .base import Constant, Store
from .folders import CacheFolder
from .plan import Plan, Where

Progress = Callable[[int, int], None]
Say = Callable[[str], None]


def open_inputs(
    plan: Plan,
    lm: LanguageModel,
    lists: Sequence[Sequence[Example]],
    *,
    first: Sequence[Example] = (),
    needed: Sequence[Example] | None = None,
    reads: Reads | None = None,
    form: Form = "auto",
    place: CacheFolder | None = None,
    progress: Progress = lambda done, total: None,
    say: Say = lambda text: None,
) -> tuple[list[InputCache], Plan]:
    """Open a cache for each list of examples; also return the plan that results.

    The lists share one store: an input that occurs in several lists, or twice in one, is computed once. In
    memory, it is computed when it is first read; `first` is the order of reading, as far as it is known.
    `needed` are the examples that will be read, where that is known; no others are computed. `reads` is the
    part of the input that the method reads. `progress(done, total)` counts distinct inputs.
    """
    every = [example for examples in lists for example in examples]
    wanted = every if needed is None else needed
    at: Where = {"cached-ram": "ram", "cached-disk": "disk"}.get(plan.mode, "nowhere")  # type: ignore[assignment]

    def opened(kept: Constant, where: Where) -> tuple[Store | None, str]:
        """Return the store, or None and why there is no room for it."""
        try:
            if where == "disk":
                folder = place or CacheFolder()
                with task(f"cache of {kept.content}") as cache_task:

                    def count(done: int, total: int) -> None:
                        cache_task.at(done, total=total)
                        progress(done, total)

                    return disk_store.open_or_build(folder, kept, wanted, progress=count, say=say), ""
            return memory_store.lazily(kept, wanted, first), ""
        except (MemoryError, RuntimeError, OSError, SoftPromptError) as error:
            room, reason = _no_room(error)
            say(f"no {room} for the cache: {kept.content} are recomputed each step instead ({reason})")
            return None, reason

    contexts = features = None
    read, kv = None, KeyValues(lm, form, common_beginning(lm, every))
    if reads is not None and plan.features is not None and plan.features.where != "nowhere":
        read = InputFeatures(lm, reads)
        features, reason = opened(read, plan.features.where)
        if features is None:
            fallen = replace(plan.features, where="nowhere", reason=reason, folder=None, stored=False)
            plan = replace(plan, features=fallen)
    if at != "nowhere":
        contexts, reason = opened(kv, at)
        if contexts is None:
            plan = replace(plan, mode="recompute", reason=reason, folder=None, stored=False)
        elif isinstance(contexts, disk_store.DiskStore) and contexts.folder is not None:
            # the plan was made before it was known whether the run holds weights
            plan = replace(plan, folder=str(contexts.folder))
    caches = [
        InputCache(
            None if contexts is None else Cache(kv, contexts, examples),
            None if features is None or read is None else Cache(read, features, examples),
            reads,
        )
        for examples in lists
    ]
    return caches, plan


def _no_room(error: Exception) -> tuple[str, str]:
    """Return "memory" or "disk", and why the cache has no room there. Raise any other error again."""
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        return "memory", "memory ran out while the cache was built"
    cause = error.__cause__ if isinstance(error, SoftPromptError) else error
    if not isinstance(cause, OSError):
        raise error
    return "disk", cause.strerror or str(cause)
