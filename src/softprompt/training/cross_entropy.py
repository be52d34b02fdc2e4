"""Cross entropy over a large vocabulary is computed without a float32 copy of the logits.

    loss_i = logsumexp(z_i) - z_i[y_i],     dloss_i/dz_i = softmax(z_i) - onehot(y_i)

Forward and backward both go over a few rows at a time, so beyond the logits themselves, in the model's own
precision, only their gradient is ever as large as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NUMBERS_AT_ONCE = 2**22  # float32 copies of 16 MiB


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the losses [N] in nats, float32; logits [N, V] have any precision, targets are [N]."""
    return _CrossEntropy.apply(logits, targets)  # type: ignore[return-value]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        rows = _rows_at_once(logits)
        losses, sums = [], []
        for part, wanted in zip(logits.split(rows), targets.split(rows), strict=True):
            exact = _exact(part)
            sums.append(exact.logsumexp(1))
            losses.append(sums[-1] - exact.gather(1, wanted[:, None])[:, 0])
        ctx.save_for_backward(logits, targets, torch.cat(sums))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits, targets, sums = ctx.saved_tensors
        out = torch.empty_like(logits)
        rows = _rows_at_once(logits)
        whole = (logits, targets, sums, gradients[0], out)
        for part, wanted, total, gradient, into in zip(*(t.split(rows) for t in whole), strict=True):
            soft = (_exact(part) - total[:, None]).exp_()
            soft.scatter_add_(1, wanted[:, None], soft.new_full((len(wanted), 1), -1.0))
            into.copy_(soft.mul_(gradient[:, None]))
        return out, None


def _exact(part: Tensor) -> Tensor:
    return part if part.dtype == torch.float64 else part.float()


def _rows_at_once(logits: Tensor) -> int:
    return max(1, NUMBERS_AT_ONCE // logits.shape[1])
