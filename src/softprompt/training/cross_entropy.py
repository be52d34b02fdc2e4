"""Cross entropy over a large vocabulary is computed without a float32 copy of the logits.

    loss_i = logsumexp(z_i) - z_i[y_i],     dloss_i/dz_i = softmax(z_i) - onehot(y_i)

Forward and backward both go over a few rows at a time, so beyond the logits themselves, in the model's own
precision, only their gradient is ever as large as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..lm.logit_rows import exact, rows_at_once


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the losses [N] in nats, float32; logits [N, V] have any precision, targets are [N]."""
    return _CrossEntropy.apply(logits, targets)  # type: ignore[return-value]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        rows = rows_at_once(logits)
        losses, sums = [], []
        for part, wanted in zip(logits.split(rows), targets.split(rows), strict=True):
            scores = exact(part)
            sums.append(scores.logsumexp(1))
            losses.append(sums[-1] - scores.gather(1, wanted[:, None])[:, 0])
        ctx.save_for_backward(logits, targets, torch.cat(sums))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits, targets, sums = ctx.saved_tensors
        out = torch.empty_like(logits)
        rows = rows_at_once(logits)
        whole = (logits, targets, sums, gradients[0], out)
        for part, wanted, total, gradient, into in zip(*(t.split(rows) for t in whole), strict=True):
            soft = (exact(part) - total[:, None]).exp_()
            soft.scatter_add_(1, wanted[:, None], soft.new_full((len(wanted), 1), -1.0))
            into.copy_(soft.mul_(gradient[:, None]))
        return out, None
