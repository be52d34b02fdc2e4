"""A model's own rule decides which keys a query sees; here it is evaluated at positions, not columns.

transformers makes a mask from a function of column numbers: causal, a window, a chunk. Where some keys
of a row are injected as columns (a cached input, the rows that a server holds), the columns of the call
do not start at the row's first position. A window counts distances and does not care; a chunk does. So
the function is called with the columns that the row would have if all of it were in the call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function

RULE = "softprompt_rule"  # attribute of a mask: the rule that it was made by


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A mask function of transformers' for a batch whose rows have `padding` [B] columns at their left."""

    function: Callable[..., Tensor]
    padding: Tensor

    def seen(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return which keys at positions [B or 1, k] the queries at positions [B, q] see: [B, 1, q, k] bool.

        The keys precede the queries. A query of padding has no position, and sees what seems to
        follow it: a row of attention without any key is no number.
        """
        rows = torch.arange(len(self.padding), device=queries.device)[:, None, None, None]
        q = (queries + self.padding[:, None])[:, None, :, None]
        k = (keys + self.padding[:, None])[:, None, None, :]
        return self.function(rows, torch.zeros_like(rows), q, k) | (k > q)

    def behind(self, ahead: Tensor) -> Callable[..., Tensor]:
        """The function for columns that have `ahead` [B] positions of their row in front of them."""

        def moved(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            more = ahead[row]
            return self.function(row, head, query + more, key + more)

        return moved


def rule_of(arguments: dict[str, Any]) -> Rule | None:
    """Return the rule in a mask function's arguments; None where it is plainly causal, or cannot be moved."""
    function = arguments.get("mask_function", causal_mask_function)
    if function is causal_mask_function or arguments.get("use_vmap") or _looks_up_columns(function):
        return None
    mask = arguments.get("attention_mask")
    if mask is None:
        rows = int(arguments["batch_size"])
        return Rule(function, torch.zeros(rows, dtype=torch.long, device=arguments.get("device")))
    return Rule(function, (mask.cumsum(-1) == 0).sum(-1))


def _looks_up_columns(function: Any) -> bool:
    """Return whether a mask function reads a table with a number for each column, [B, columns].

    Gemma's does, for the images in a row. It knows no column beyond the call, and on a GPU asking for one
    ends the process.
    """
    if isinstance(function, Tensor):
        return function.dim() > 1
    if isinstance(function, (tuple, list)):
        return any(map(_looks_up_columns, function))
    cells = getattr(function, "__closure__", None) or ()
    return any(_looks_up_columns(cell.cell_contents) for cell in cells)
