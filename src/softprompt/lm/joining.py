"""New requests of a running batch: what is not known of each row is run, several rows in one pass.

Keys and values that are known before come as a row's `Context`. The rest of `lm.kv_store` decodes the rows.
This file knows nothing of requests, prompts' names or sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, final

import torch
from torch import Tensor

from ..injection import Injection, LayerKV, Layers
from . import causal_rows, packed
from .causal import CausalLM
from .context import Context, positions_after
from .probe import recorded

PADDING = 32  # positions that take about as long as it takes to begin another pass
PACKED_PADDING = 2  # the same where passes are packed into one: another call for each layer's attention

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Joining:
    """One row of [before | input | after] that has no token of its answer yet."""

    vectors: Tensor  # [S, H] its embeddings but for those in `context`; the last input token is among them
    after: int  # how many of them follow the input
    injection: Injection  # its prefixes and adapter, of one row; soft tokens are `vectors`
    context: Context | None = None  # of one row: keys and values of what precedes `vectors`
    room: int = 0  # tokens that will follow: their columns are taken at once

    @property
    def positions(self) -> int:
        """Return the number of positions of the row so far; prefixes have none."""
        return self.vectors.shape[0] + (0 if self.context is None else self.context.mask.shape[1])

    @property
    def columns(self) -> int:
        """Return the number of columns that the row needs in the store."""
        prefixes = (self.injection.kv_before, self.injection.kv_after)
        return self.positions + sum(int(p.mask.sum()) for p in prefixes if p is not None)


def alike(rows: Sequence[tuple[Row, Joining]], most: int = PADDING) -> list[list[tuple[Row, Joining]]]:
    """Group rows, each with the object it belongs to, into batches with at most `most` columns of padding."""
    batches: list[list[tuple[Row, Joining]]] = []
    padding = 0
    for row in sorted(rows, key=lambda row: -len(row[1].vectors)):
        padding += len(batches[-1][0][1].vectors) - len(row[1].vectors) if batches else 0
        if not batches or padding > most:
            batches.append([])
            padding = 0
        batches[-1].append(row)
    return batches


@final
class Joined:
    """Rows that are run as one batch, and the result: their next logits, and their keys and values."""

    def __init__(self, lm: CausalLM, rows: Sequence[Joining]) -> None:
        """Collect the rows as one batch, which `run` or `run_packed` then computes."""
        self.rows = tuple(rows)
        width = max(row.vectors.shape[0] for row in rows)
        device = lm.device
        lengths = torch.tensor([row.vectors.shape[0] for row in rows], device=device)
        self.mask = torch.arange(width, device=device) >= width - lengths[:, None]
        self.vectors = torch.stack(
            [torch.nn.functional.pad(row.vectors, (0, 0, width - row.vectors.shape[0], 0)) for row in rows]
        )
        context = Context.cat([row.context for row in rows])
        self.positions = positions_after(context, self.mask)
        tails = torch.tensor([row.after + 1 for row in rows], device=device)
        injection = Injection.cat([row.injection for row in rows], [1] * len(rows))
        last = self.positions[:, -1]
        self.active = causal_rows.injected(
            lm, injection, self.positions, width - tails, last - tails + 1, context
        )
        self.active.record = {}
        self.logits = self.vectors.new_zeros(0)  # [B, logits, V]
        self.recorded: Layers = ()  # [B, kv_heads, width, head_dim]

    def run(self, lm: CausalLM, logits: int = 1) -> Joined:
        """Run these rows alone; `logits` is the number of last columns whose logits are computed."""
        return self._ran(lm, lm.run(self.vectors, self.mask, self.positions, self.active, logits))

    @staticmethod
    def run_packed(lm: CausalLM, batches: Sequence[Joined]) -> None:
        """Run all batches in one pass of a model that `packed.suits`."""
        parts = [(each.vectors, each.mask, each.positions, each.active) for each in batches]
        for each, logits in zip(batches, packed.run(lm, parts), strict=True):
            each._ran(lm, logits)

    def _ran(self, lm: CausalLM, logits: Tensor) -> Joined:
        self.logits, self.recorded = logits, recorded(self.active, len(lm.spec.layers))
        return self

    def context(self, row: int, start: int, end: int) -> Context:
        """Copy the keys and values of a row's positions from `start` to `end`, its context included."""
        known = self.rows[row].context
        ahead = 0 if known is None else known.mask.shape[1]
        first = self.mask.shape[1] - self.rows[row].vectors.shape[0] - ahead  # column of position 0
        layers = []
        for site, entry in enumerate(self.recorded):
            assert entry is not None
            parts = [entry.map(lambda t: t[row : row + 1, :, max(start, ahead) + first : end + first])]
            if known is not None and start < ahead:
                layer = known.layers[site]
                assert layer is not None
                parts.insert(0, layer.map(lambda t: t[:, :, start : min(end, ahead)]))
            layers.append(
                LayerKV(
                    torch.cat([part.key for part in parts], dim=2),
                    torch.cat([part.value for part in parts], dim=2),
                )
            )
        return Context(tuple(layers), self.mask.new_ones(1, end - start))
