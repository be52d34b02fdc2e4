"""Keys and values that were computed once for a batch of inputs; packing of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ..injection import Injection, LayerKV, Layers, Prefix
from .spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Context:
    """Keys and values of everything ahead of the tail, computed once: soft tokens and the input."""

    layers: Layers  # key [B, kv_heads, N, head_dim]
    mask: Bool[Tensor, "batch columns"]
    ahead: Context | None = None  # what these rows begin with: of one row that is every row's, or of each

    @property
    def lengths(self) -> Int[Tensor, " rows"]:
        """Return the number of positions of each row: [B] or, with one row, [1]."""
        count = self.mask.sum(1)
        return count if self.ahead is None else count + self.ahead.lengths

    @property
    def positions(self) -> Int[Tensor, "batch columns"]:
        """Return the positions [B, N] of the columns that follow `ahead`; padding has any number."""
        return positions_after(self.ahead, self.mask)

    def chain(self) -> Iterator[Context]:
        """Iterate over all parts in the order of their positions."""
        if self.ahead is not None:
            yield from self.ahead.chain()
        yield self

    def repeat_rows(self, times: int) -> Context:
        """Repeat each row `times` times in place."""
        return self._map(lambda tensor: tensor.repeat_interleave(times, dim=0))

    def select(self, rows: Int[Tensor, " rows"]) -> Context:
        """Take the rows with the given indices."""
        return self._map(lambda tensor: tensor[rows])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Context:
        layers = tuple(None if layer is None else layer.map(change) for layer in self.layers)
        ahead = self.ahead
        if ahead is not None and ahead.mask.shape[0] > 1:
            ahead = ahead._map(change)
        return Context(layers, change(self.mask), ahead)

    @staticmethod
    def empty(spec: ModelSpec, mask: Tensor, dtype: torch.dtype, ahead: Context | None) -> Context:
        """Return a context without columns, for as many rows as the mask [B, N] has."""
        rows = mask.shape[0]

        def zeros(heads: int, size: int) -> Tensor:
            return torch.zeros(rows, heads, 0, size, dtype=dtype, device=mask.device)

        layers = tuple(
            LayerKV(zeros(s.kv_heads, s.head_dim), zeros(s.kv_heads, s.v_head_dim)) for s in spec.layers
        )
        return Context(layers, mask[:, :0], ahead)

    @staticmethod
    def cat(parts: Sequence[Context | None]) -> Context | None:
        """Join contexts of one row each into a right-aligned batch; None where no row has any."""
        if all(part is None for part in parts):
            return None
        prefixes = [None if part is None else Prefix(part.layers, part.mask) for part in parts]
        merged = Injection.cat([Injection(kv_before=prefix) for prefix in prefixes]).kv_before
        assert merged is not None
        return Context(merged.layers, merged.mask)


def positions_after(
    ahead: Context | None, mask: Bool[Tensor, "batch columns"]
) -> Int[Tensor, "batch columns"]:
    """Count the positions of the columns of a mask [B, S] behind `ahead`; padding has any number."""
    count = mask.cumsum(1) - 1
    return (count if ahead is None else count + ahead.lengths[:, None]).clamp(min=0)


def pack_right(
    vectors: Shaped[Tensor, "batch columns size"], mask: Bool[Tensor, "batch columns"]
) -> tuple[Shaped[Tensor, "batch longest size"], Bool[Tensor, "batch longest"]]:
    """Move each row's real positions to the right end, in order; columns that no row uses are dropped.

    A gap inside a row would be harmless to full attention, but sliding windows count columns.
    """
    width = int(mask.sum(1).max()) if mask.numel() else 0
    order = mask.to(torch.uint8).argsort(dim=1, stable=True)[:, mask.shape[1] - width :]  # padding first
    packed = vectors.gather(1, order[:, :, None].expand(-1, -1, vectors.shape[2]))
    return packed, mask.gather(1, order)


def pack_left(
    vectors: Shaped[Tensor, "batch columns size"], mask: Bool[Tensor, "batch columns"]
) -> tuple[Shaped[Tensor, "batch longest size"], Bool[Tensor, "batch longest"]]:
    """Move each row's real positions to the left end, in order: encoders count from there."""
    width = int(mask.sum(1).max()) if mask.numel() else 0
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]  # padding last
    packed = vectors.gather(1, order[:, :, None].expand(-1, -1, vectors.shape[2]))
    return packed, mask.gather(1, order)


def back_to_right(
    packed: Float[Tensor, "batch longest size"], mask: Bool[Tensor, "batch columns"]
) -> Float[Tensor, "batch columns size"]:
    """Move rows [B, S, D] from `pack_left` to the right again; `mask` [B, N] counts their real columns.

    Column j of a row with n real ones is its column j - (N - n); padding has any number.
    """
    columns = torch.arange(mask.shape[1], device=mask.device) - (~mask).sum(1, keepdim=True)
    return packed.gather(1, columns.clamp(min=0)[:, :, None].expand(-1, -1, packed.shape[2]))
