"""The divergence of a model's distributions from a teacher's, of which the likeliest tokens are known.

    D_i = Σ_{t in top k} p_t (log p_t - log q_t) + p_r (log p_r - log q_r)

p is the teacher's distribution of one position and q the model's; r is the class of all tokens that are not
among the teacher's k likeliest. It is the Kullback–Leibler divergence of the two over k + 1 classes, so never
more than that over the whole vocabulary. As in `training.cross_entropy`, forward and backward go over a few
rows at a time, so that no float32 copy of all logits is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .logit_rows import exact, rows_at_once


def top_k(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the ids [N, k] of the likeliest tokens and their log-probabilities [N, k] in float32, in nats.

    `logits` are [N, V]; `k` is cut to V.
    """
    k, parts = min(k, logits.shape[1]), _split(logits)(logits)
    parts = [part.float().log_softmax(-1).topk(k) for part in parts]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])


def divergence(logits: Tensor, ids: Tensor, logprobs: Tensor) -> Tensor:
    """Return the divergence [N] in nats, float32, of logits [N, V] from a teacher's top k [N, k].

    The gradient goes to the logits alone.
    """
    return _Divergence.apply(logits, ids, logprobs)  # type: ignore[return-value]


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, logprobs: Tensor) -> Tensor:
        parts = [_of_part(*part) for part in zip(*map(_split(logits), (logits, ids, logprobs)), strict=True)]
        out, *masses = (torch.cat(each) for each in zip(*parts, strict=True))
        ctx.save_for_backward(logits, ids, logprobs, *masses)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits, ids, logprobs, total, rest = ctx.saved_tensors
        out = torch.empty_like(logits)
        parts = map(_split(logits), (logits, ids, logprobs, total, rest, gradients[0], out))
        for part, at, known, whole, beyond, gradient, into in zip(*parts, strict=True):
            soft = exact(part).sub(whole[:, None]).exp_()
            # d D / d z_j = q_j - p_j for a known token; for the others p_r is shared out as q shares it
            share = _rest(known) / beyond.clamp(min=-80.0).exp()
            changed = soft.gather(1, at) - known.exp().to(soft.dtype)
            soft.mul_(((1 - share) * gradient)[:, None]).scatter_(1, at, changed * gradient[:, None])
            into.copy_(soft)
        return out, None, None


def _of_part(logits: Tensor, ids: Tensor, logprobs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the divergence, the log of the sum of exponentials and the log-mass of the rest: [n] each."""
    scores = exact(logits)
    of_known = scores.gather(1, ids)
    # the known tokens apart, so that one pass of exponentials over the vocabulary tells both sums
    of_rest = scores.scatter(1, ids, -torch.inf)
    most = of_rest.amax(1, keepdim=True).clamp(min=torch.finfo(scores.dtype).min)
    of_rest = most[:, 0] + of_rest.sub_(most).exp_().sum(1).log()
    total = torch.logaddexp(of_known.logsumexp(1), of_rest)
    q, rest = of_known - total[:, None], of_rest - total
    p, p_rest = logprobs.exp().to(scores.dtype), _rest(logprobs).to(scores.dtype)
    known = (p * (logprobs - q)).sum(1)
    # a class without mass adds nothing, whatever the model says of it
    beyond = torch.where(p_rest > 0, p_rest * (p_rest.clamp(min=1e-30).log() - rest), 0.0)
    return known + beyond, total, rest


def _rest(logprobs: Tensor) -> Tensor:
    """Return the teacher's mass outside the top k [n]; what rounding leaves of a sum of 1 counts as none."""
    rest = 1 - logprobs.double().exp().sum(1)
    return torch.where(rest > 1e-6, rest, 0.0).to(logprobs.dtype)


def _split(logits: Tensor) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return the function that splits a tensor into the rows that are computed at once."""
    rows = rows_at_once(logits)
    return lambda tensor: tensor.split(rows)
