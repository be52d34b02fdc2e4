"""A decoder-only model reads a row as [before | input | after | target]; this file says who sees what.

Rows are right-aligned and have no gaps. The last input token always belongs to the *tail*, which runs after
a cached input: it predicts the first target token, so it must see a prefix that is placed after the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..data.collate import Batch
from ..injection import Injection
from .context import Context, pack_right
from .injected import Active, Columns

if TYPE_CHECKING:
    from .causal import CausalLM


def sequence(
    lm: CausalLM, batch: Batch, injection: Injection, *, skip_input: bool = False, targets: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the embeddings [B, S, H] and the mask [B, S] of the rows' parts, packed to the right.

    With `skip_input`, rows begin with their last input token; without `targets`, they end ahead of them.
    """
    ids, mask = batch.input_ids, batch.input_mask
    before = injection.before
    if skip_input:
        ids, mask, before = ids[:, -1:], mask[:, -1:], None
    parts = [] if before is None else [(lm.soft_inputs(before.vectors), before.mask)]
    parts.append((lm.token_inputs(ids), mask))
    if injection.after is not None:
        parts.append((lm.soft_inputs(injection.after.vectors), injection.after.mask))
    if targets and batch.target_ids.shape[1] > 1:
        parts.append((lm.token_inputs(batch.target_ids[:, :-1]), _all_but_last(batch.target_mask)))
    vectors, masks = (torch.cat(column, dim=1) for column in zip(*parts, strict=True))
    return pack_right(vectors, masks)


def injected(
    lm: CausalLM,
    injection: Injection,
    positions: Tensor | None,
    tail_start: Tensor | int,
    last_input: Tensor | int,
    context: Context | None,
) -> Active:
    """Return what a call of the model sees: cached inputs, prefixes and an adapter.

    `positions` [B, S] are those of the call's columns, needed where the context has positions. Columns from
    `tail_start` on ([B], or one for all) see the prefix that is placed after the input, whose last token is
    at position `last_input` ([B], or one for all).
    """
    columns = []
    for part in context.chain() if context is not None else ():
        columns.append(Columns(part.layers, part.mask, positions=part.positions))
    if injection.kv_before is not None:
        before = injection.kv_before
        columns.append(Columns(before.layers, before.mask, reach=before.reach))
    if injection.kv_after is not None:
        after = injection.kv_after
        moved = lm.move(after.layers, last_input)
        columns.append(Columns(moved, after.mask, tail_only=True, reach=after.reach))
    return Active(
        columns=tuple(columns),
        adapter=injection.adapter,
        tail_start=tail_start,
        query_positions=positions,
    )


def _all_but_last(mask: Tensor) -> Tensor:
    """Return the mask of the target tokens that are fed back: a right-aligned row minus its last token."""
    return mask[:, :-1] & mask[:, 1:] if mask.shape[1] > 1 else mask[:, :0]
