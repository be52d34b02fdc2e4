"""Flash kernels take no mask, but packed sequences: the queries of each see its keys.

`mask_flash` gives layers the real columns [B, k] of a causal call instead of a mask [B, 1, q, k]. A `Layout`
adds the injected columns to them, and turns each set of columns into a `Block` of packed sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.masking_utils import causal_mask_function

from .injected import Active, Columns
from .masks import tail
from .ragged import rows_of


@dataclass(frozen=True, slots=True)
class Block:
    """The queries of each sequence see its keys; `starts` and `longest` describe queries and keys."""

    queries: Tensor | None  # which of the packed queries, by number; None: all
    keys: Tensor | None  # which of a part's [rows · columns], by number; None: all
    starts: tuple[Tensor, Tensor]  # int32 [sequences + 1]: where each sequence begins, and the last one ends
    longest: tuple[int, int]
    causal: bool = False  # a sequence's last query sees all of its keys, each earlier one a key less


@final
class Layout:
    """The columns that the queries of a causal call see: those ahead of it, and its own."""

    def __init__(self, real: Tensor, queries: int, ahead: Sequence[tuple[Tensor, Tensor]] = ()) -> None:
        """`real` [B, k] are the call's real columns, of which the last `queries` are its queries.

        For each set of columns ahead: which are real [B, P], and which queries see these [B, q].
        """
        self.real, self.ahead = real, ahead
        self._asking = real[:, real.shape[1] - queries :]
        #: The queries that are no padding, by their numbers among [B · q]; None: all.
        self.queries = None if bool(self._asking.all()) else self._asking.flatten().nonzero()[:, 0]
        self._blocks: dict[tuple[bool, ...], list[Block | None]] = {}

    def blocks(self, shared: Sequence[bool]) -> list[Block | None]:
        """Return a block for each part, the call's own last; None where nobody sees any of its columns.

        `shared` says which parts have one row of keys and values for all rows.
        """
        name = tuple(shared)
        if name not in self._blocks:
            pairs = zip(self.ahead, name, strict=False)
            ahead = [self._ahead(*columns, is_shared) for columns, is_shared in pairs]
            self._blocks[name] = [*ahead, self._own()]
        return self._blocks[name]

    def dense(self) -> Tensor:
        """Return the same as a mask for scores: [B, 1, q, sum of P + k] bool."""
        ahead = [real[:, None] & asking[:, :, None] for real, asking in self.ahead]
        columns = torch.arange(self.real.shape[1], device=self.real.device)
        causal = self.real[:, None] & (columns <= columns[-self._asking.shape[1] :, None])
        return torch.cat([*ahead, causal], dim=-1)[:, None]

    def _own(self) -> Block | None:
        return _block(None, _numbers(self.real), self._asking.sum(1), self.real.sum(1), causal=True)

    def _ahead(self, real: Tensor, asking: Tensor, is_shared: bool) -> Block | None:
        asking = self._asking & asking & real.any(1, keepdim=True)
        queries = _numbers(asking[self._asking])
        if is_shared and bool((real == real[:1]).all()):  # all rows are one sequence: nothing is repeated
            return _block(queries, _numbers(real[0]), asking.sum()[None], real[0].sum()[None])
        keys = real.nonzero()[:, 1] if is_shared else _numbers(real)
        return _block(queries, keys, asking.sum(1), real.sum(1))


def _numbers(chosen: Tensor) -> Tensor | None:
    """Return the numbers of what is chosen in a mask, counted through all of it; None where all is."""
    return None if bool(chosen.all()) else chosen.flatten().nonzero()[:, 0]


def _block(
    queries: Tensor | None, keys: Tensor | None, asking: Tensor, real: Tensor, *, causal: bool = False
) -> Block | None:
    """Make a block of sequences with `asking` queries and `real` keys each, [sequences]."""
    counts = torch.stack([asking, real])
    longest = counts.amax(1).tolist()
    if not all(longest):
        return None
    starts = pad(counts.cumsum(1), (1, 0)).to(torch.int32)
    return Block(queries, keys, (starts[0], starts[1]), (longest[0], longest[1]), causal)


def is_layout(mask: Any) -> bool:
    """Return whether a mask says which columns are real, or is a layout; else it is a mask for scores."""
    return isinstance(mask, Layout) or (isinstance(mask, Tensor) and mask.dim() == 2)


def layout_of(mask: Tensor | Layout, queries: int) -> Layout:
    """Return the layout of a call without injected columns; one that is a layout is returned unchanged."""
    return mask if isinstance(mask, Layout) else Layout(mask, queries)


def whole_layout(
    active: Active, present: Sequence[Columns], site: int, query: Tensor, keys: int, real: Tensor | Layout
) -> Layout:
    """Return the layout with the injected columns ahead. It is made once for all layers with the same."""
    if isinstance(real, Layout):
        return real
    own_site = site if any(c.reach for c in present) else None
    rows, queries = query.shape[0], query.shape[2]
    name = ("layout", tuple(id(c) for c in present), own_site, rows, queries, keys, id(real))
    if name not in active.masks:
        offset = active.offsets.get((queries, keys), active.query_offset)
        everyone = real.new_ones(rows, queries)
        in_tail = everyone & tail(active, queries, offset, real.device)
        ahead = [(rows_of(c.at(site), rows), in_tail if c.tail_only else everyone) for c in present]
        # its own columns are kept beside it, so that no others take their id
        active.masks[name] = real, Layout(real, queries, ahead)
    return active.masks[name][1]


def without_layout(mask: Any, queries: int) -> Any:
    """Return a mask for scores in place of real columns; other masks are returned unchanged."""
    return layout_of(mask, queries).dense() if is_layout(mask) else mask


def real_columns(arguments: dict[str, Any]) -> Tensor | None:
    """Return the real columns [B, k] of a mask function's arguments; None where they do not say all.

    They do where each query sees every real column up to its own, and the queries are the last columns.
    """
    queries, keys = arguments["q_length"], arguments["kv_length"]
    offset, mask = arguments.get("q_offset", 0), arguments.get("attention_mask")
    if arguments.get("mask_function", causal_mask_function) is not causal_mask_function:
        return None
    if not isinstance(offset, int) or offset + queries != keys or arguments.get("kv_offset", 0):
        return None
    if mask is None:
        return torch.ones(arguments["batch_size"], keys, dtype=torch.bool, device=arguments.get("device"))
    return mask.bool() if mask.shape[-1] == keys else None
