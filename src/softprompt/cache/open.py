"""The caches that a plan asks for, opened; where there turns out to be no room, the plan without them."""

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
    """A cache for each list of examples, and the plan as it came out.

    The lists share one store: an input that occurs in several, or twice in one, is computed once; in memory
    when it is first asked for (`first`: in which order, as far as it is known). `needed` are all that will be
    asked for, where that is known: of other rows nothing is computed. `reads` is what the method
    reads of the input. `progress(done, total)` counts distinct inputs.
    """
    every = [example for examples in lists for example in examples]
    wanted = every if needed is None else needed
    at: Where = {"cached-ram": "ram", "cached-disk": "disk"}.get(plan.mode, "nowhere")  # type: ignore[assignment]

    def opened(kept: Constant, where: Where) -> tuple[Store | None, str]:
        """The store, or None and why there is no room for it."""
        try:
            if where == "disk":
                place_or_own = place or CacheFolder()
                with task(f"cache of {kept.what}") as own:

                    def count(done: int, total: int) -> None:
                        own.at(done, total=total)
                        progress(done, total)

                    return disk_store.open_or_build(place_or_own, kept, wanted, progress=count, say=say), ""
            return memory_store.lazily(kept, wanted, first), ""
        except (MemoryError, RuntimeError, OSError, SoftPromptError) as error:
            room, reason = _no_room(error)
            say(f"no {room} for the cache: {kept.what} are recomputed each step instead ({reason})")
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
    """("memory" or "disk", why the cache has no room there). Raises `error` again where it is another."""
    if isinstance(error, MemoryError) or "memory" in str(error).lower():
        return "memory", "memory ran out while the cache was built"
    cause = error.__cause__ if isinstance(error, SoftPromptError) else error
    if not isinstance(cause, OSError):
        raise error
    return "disk", cause.strerror or str(cause)
