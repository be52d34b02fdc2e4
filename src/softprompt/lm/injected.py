"""Vectors are injected during a model call; this is how they reach the attention function.

It reaches the function through a context variable, so two threads never see each other's. Each call of an
attention module is a *site*, numbered on load (`lm.probe`): encoder layers, decoder layers and
cross-attention alike. This file knows nothing of models: `lm.attachment` holds what is changed on them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import SoftPromptError
from ..injection import LayerKV, Layers, Prefix
from .visibility import Rule


@dataclass(frozen=True, slots=True)
class Site:
    """An attention module has `calls` numbers from `first` on, one for each call in a run of the model."""

    first: int
    calls: int = 1
    bias: Any = None  # the T5 layer that computes its position bias


@dataclass(frozen=True, slots=True)
class Columns:
    """Keys and values that some or all queries see beside the sequence's own.

    `tail_only`: seen only by queries from `Active.tail_start` on. `positions` [B, P]: where a
    sliding window counts these columns; None where they are visible at any distance.
    """

    layers: Layers
    mask: Tensor  # [B, P] bool
    tail_only: bool = False
    positions: Tensor | None = None
    reach: tuple[Tensor | None, ...] = ()  # by layer: which rows have it, [B] bool; None: all

    def at(self, site: int) -> Tensor:
        """Return the mask [B, P] of a layer's columns."""
        reach = self.reach[site] if self.reach else None
        return self.mask if reach is None else self.mask & reach[:, None]


@dataclass(slots=True)
class Active:
    """All that is injected during one model call (or one `generate`), and what is recorded of it."""

    columns: Sequence[Columns] = ()
    sites: Mapping[Any, Site] = field(default_factory=dict)  # the model's attention modules; others are plain
    adapter: Prefix | None = None
    tail_start: Tensor | int = 0  # [B] or one for all: the first query column that sees tail_only columns
    query_positions: Tensor | None = None  # [B, q], needed only where columns have positions
    query_offset: Any = 0  # columns already in the cache; set by the mask function at every model call
    # the same by (queries, keys), where a call makes several masks: a decoder's other one is of its encoder
    offsets: dict[tuple[int, int], Any] = field(default_factory=dict)
    masks: dict[Any, tuple[Tensor | None, Any]] = field(default_factory=dict)  # the model's, and extended
    record: dict[int, LayerKV] | None = None  # each site's own keys and values, as they reach the function
    kept: KeyValueStore | None = None  # where each site's own keys and values are kept from call to call
    visits: list[Visit] | None = None  # who called, in order (for the probe)
    fit: Fit | None = None  # chooses each site's injected columns when the site is reached
    outputs: dict[int, Tensor] | None = None  # each site's output [B, q, heads, v_head_dim]
    packs: Sequence[Pack] = ()  # the one row of the call is these, one after the other: see `lm.packed`
    reached: set[int] = field(default_factory=set)  # sites that have called
    flash_calls: int = 0  # of attention, that the flash kernels took
    calls: dict[int, int] = field(default_factory=dict)  # by a module's first number: calls made of several

    @property
    def has_positions(self) -> bool:
        """Return whether some columns have positions of the row that are not in the call."""
        return self.query_positions is not None and (
            self.kept is not None or any(c.positions is not None for c in self.columns)
        )

    def next_call(self, site: Site) -> int:
        """The number of the call that an attention module is making now."""
        if site.calls == 1:
            return site.first
        call = self.calls.get(site.first, 0)
        self.calls[site.first] = (call + 1) % site.calls
        return site.first + call

    def check(self) -> None:
        """Raise SoftPromptError where a layer did not call for the vectors that it was to see."""
        wanted = {
            site
            for part in (*self.columns, *([] if self.adapter is None else [self.adapter]))
            for site, layer in enumerate(part.layers)
            if layer is not None
        }
        lost = wanted - self.reached
        if lost or (self.record is not None and not self.reached):
            which = f"{len(lost)} of its layers" if lost else "its layers"
            raise attention_lost(f"{which} did not call the attention function that puts vectors in")


@dataclass(slots=True)
class Pack:
    """Rows of one width are packed in a longer row, from column `start` on."""

    start: int
    mask: Tensor  # [B, S] bool: which of their columns are real
    active: Active
    _causal: dict[int, Tensor | None] = field(default_factory=dict)  # by reach

    @property
    def end(self) -> int:
        """Return the column after the last one of these rows."""
        return self.start + self.mask.numel()

    def rows(self, whole: Tensor) -> Tensor:
        """Return these rows, [B, heads, S, d], from the packed tensor `whole` [1, heads, columns, d]."""
        return whole[0, :, self.start : self.end].unflatten(1, self.mask.shape).transpose(0, 1)

    def causal(self, window: int | None) -> Tensor | None:
        """Return which keys each query sees, [B or 1, 1, S, S] bool; None where the kernel knows it."""
        reach = min(window or self.mask.shape[1], self.mask.shape[1])  # no further than the row is long
        if reach not in self._causal:
            self._causal[reach] = self._seen(reach)
        return self._causal[reach]

    def _seen(self, reach: int) -> Tensor | None:
        at = torch.arange(self.mask.shape[1], device=self.mask.device)
        padded, limited = not bool(self.mask.all()), reach < len(at)
        if not (padded or limited or self.active.columns):
            return None
        back = at[:, None] - at[None, :]
        seen = (back >= 0) & (back < reach)
        if padded:  # a column of padding sees itself: a row that sees nothing is no number
            return (seen & (self.mask[:, None, :] | (back == 0)))[:, None]
        return seen[None, None]


class Fit(Protocol):
    """Chooses the columns that a site's queries see, from what reaches the attention function there."""

    def __call__(
        self, site: int, query: Tensor, call: LayerKV, mask: Tensor | None, options: Mapping[str, Any]
    ) -> LayerKV:
        """Return keys and values [1, kv_heads, P, head_dim] for queries [B, heads, q, head_dim].

        `call` holds the sequence's own keys and values, `mask` [B, 1 or heads, q, k] says which of them a
        query sees, `options` are the attention function's other arguments.
        """
        ...


class KeyValueStore(Protocol):
    """Keys and values of the rows so far, one query a row: see `lm.kv_store`."""

    def grown(self, site: int, new: LayerKV, window: int | None, rule: Rule | None) -> tuple[LayerKV, Tensor]:
        """Add `new` [B, kv_heads, 1, head_dim] to a layer, and return all that its queries see.

        The keys and values are [B, kv_heads, n, head_dim]; the mask [B, 1, 1, n] says which of them each row
        has. The model's own rule decides what a query sees, else the window.
        """
        ...


@dataclass(frozen=True, slots=True)
class Visit:
    """One call of the attention function, as it is recorded for the probe."""

    module: Any
    heads: int
    queries: int
    keys: int
    kv: LayerKV


_ACTIVE: ContextVar[Active | None] = ContextVar("softprompt_active", default=None)


@contextlib.contextmanager
def inject(
    active: Active | None, sites: Mapping[Any, Site] | None = None, *, part: bool = False
) -> Iterator[Active | None]:
    """Everything computed inside sees `active` (None: the plain model) at the attention modules in `sites`.

    Raises SoftPromptError where a layer did not see its vectors; `part`: only a part of the model is run.
    """
    if active is not None and sites is not None:
        active.sites = sites
    token = _ACTIVE.set(active)
    try:
        yield active
    finally:
        _ACTIVE.reset(token)
    if active is not None and not part:
        active.check()


def attention_lost(why: str) -> SoftPromptError:
    """The error where a model no longer runs the attention that it was loaded with."""
    return SoftPromptError(
        "the model's attention was changed after it was loaded",
        why=f"{why}: a prefix would have no effect",
        fix="load the model again, and choose its attention there (attention=sdpa or attention=eager)",
    )


def checkpoint_contexts() -> tuple[Any, Any]:
    """Return torch.utils.checkpoint's `context_fn`: the recomputation sees what the forward saw.

    The backward pass may run on another thread, where the context variable is not set.
    """
    return contextlib.nullcontext(), inject(_ACTIVE.get())


def current() -> Active | None:
    """Return what is injected now; None: nothing is."""
    return _ACTIVE.get()
