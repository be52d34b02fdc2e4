"""A prefix is chosen in closed form so that attention gives out what it gives out over a whole text.

Attention Matching (2602.16284), for each head of keys and values: the columns are those of the text's that
sampled queries attend to most (highest root mean square), and their values are solved by least squares, so
that the layer's output is right. Fewer columns get less of the softmax's mass than the text got. The paper
adds a bias β to each column's logit for that (exp β by non-negative least squares), which an attention
function without biases cannot have. Here β is absorbed: a key moves by β along the direction u in which all
queries have the same component (q · u ≈ 1, times the scale of the logits, by least squares). The values are
fitted to the moved keys. `python -m benchmarks.distill beta` compares this with biases that are kept.

This file knows tensors alone. Queries of the heads that share keys are taken together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..injection import LayerKV

RIDGE_OF_VALUES = 0.1  # of the mean squared weight of a column; less of it fits the sample and not others
RIDGE_OF_DIRECTION = 1e-2  # of the mean squared component of a query
RIDGE_OF_BIASES = (
    0.1  # of the mean squared share of a column; it keeps a bias near 0 where queries say little
)
LARGEST_BIAS = 6.0  # exp(-6) of a column's attention is as good as none


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries of one layer, with what they see of their own rows, and the output that is right."""

    query: Float[Tensor, "n heads head_dim"]
    alone: Float[Tensor, "n heads v_head_dim"]  # attention over the row's own keys alone
    mass: Float[Tensor, "n heads"]  # log of the sum of exp(logit) over the row's own keys
    target: Float[Tensor, "n heads v_head_dim"]
    scale: float  # of the logits

    def by_head(self, kv_heads: int) -> Queries:
        """Return the same for each head of keys: n becomes heads of keys, heads the queries of each."""

        def group(t: Tensor) -> Tensor:
            n, heads = t.shape[:2]
            return t.reshape(n, kv_heads, heads // kv_heads, *t.shape[2:]).transpose(0, 1).flatten(1, 2)

        return Queries(group(self.query), group(self.alone), group(self.mass), group(self.target), self.scale)


def match(queries: Queries, text: LayerKV, length: int, *, keep_first: bool = False) -> LayerKV:
    """Choose keys and values [1, kv_heads, length, head_dim] for those of a text [1, kv_heads, T, head_dim].

    `keep_first` keeps the text's first column unchanged, which is often the attention sink. With `length` T
    the text's own columns are returned.
    """
    keys, values = text.key[0].float(), text.value[0].float()
    if length >= keys.shape[1]:
        return LayerKV(keys[None], values[None])
    grouped = queries.by_head(keys.shape[0])
    fewer, kept = chosen(grouped, keys, values, length, keep_first)
    first = 1 if keep_first else 0
    moved = fewer + biases(grouped, keys, fewer, first)[..., None] * direction(grouped)
    return LayerKV(moved[None], solved(grouped, moved, kept, first)[None])


def chosen(
    queries: Queries,
    keys: Float[Tensor, "kv_heads tokens head_dim"],
    values: Float[Tensor, "kv_heads tokens v_head_dim"],
    length: int,
    keep_first: bool = False,
) -> tuple[Float[Tensor, "kv_heads columns head_dim"], Float[Tensor, "kv_heads columns v_head_dim"]]:
    """Return the keys that get the most attention in each head, in their order, and their values."""
    scores = weights(queries, keys).square().mean(1)
    if keep_first:
        scores[:, 0] = torch.inf
    places = scores.topk(length, dim=-1).indices.sort(-1).values[..., None]
    return tuple(t.gather(1, places.expand(-1, -1, t.shape[2])) for t in (keys, values))  # type: ignore[return-value]


def direction(queries: Queries) -> Float[Tensor, "kv_heads 1 head_dim"]:
    """Return the direction u in which every query has the component 1, times the scale of the logits."""
    q = queries.query * queries.scale
    gram = q.transpose(1, 2) @ q
    along = torch.linalg.solve(gram + _ridge(gram, RIDGE_OF_DIRECTION), q.sum(1)[..., None])
    return along.transpose(1, 2)


def biases(
    queries: Queries,
    keys: Float[Tensor, "kv_heads tokens head_dim"],
    fewer: Float[Tensor, "kv_heads columns head_dim"],
    first: int = 0,
) -> Float[Tensor, "kv_heads columns"]:
    """Return the biases with which the columns `fewer` get the attention that `keys` get; 0 for the `first`.

    exp(bias) are the weights, 0 or more, with which the columns' shares of each query's attention sum to
    that of all keys, by least squares towards 1.
    """
    from scipy.optimize import nnls

    if fewer.shape[1] == first:  # nnls of no columns writes beyond its memory
        return fewer.new_zeros(fewer.shape[:2])
    logits, every = (queries.query @ k.transpose(1, 2) * queries.scale for k in (fewer, keys))
    whole = every.logsumexp(-1, keepdim=True)
    total = torch.logaddexp(whole, queries.mass[..., None])
    share, wanted = ((t - total).exp().cpu().double() for t in (logits, whole))
    wanted = wanted - share[..., :first].sum(-1, keepdim=True)
    share = share[..., first:]
    gram = share.transpose(1, 2) @ share
    ridge = _ridge(gram, RIDGE_OF_BIASES)
    right = share.transpose(1, 2) @ wanted + ridge.sum(-1, keepdim=True)
    # the same problem, with as many rows as columns
    lower = torch.linalg.cholesky(gram + ridge)
    right = torch.linalg.solve_triangular(lower, right, upper=False)[..., 0]
    pairs = zip(lower.transpose(1, 2).numpy(), right.numpy(), strict=True)
    weight = torch.stack([torch.from_numpy(nnls(a, b)[0]) for a, b in pairs])
    bias = weight.log().clamp(-LARGEST_BIAS, LARGEST_BIAS).to(fewer)
    return torch.cat([bias.new_zeros(len(bias), first), bias], dim=1)


def solved(
    queries: Queries,
    keys: Float[Tensor, "kv_heads columns head_dim"],
    values: Float[Tensor, "kv_heads columns v_head_dim"],
    first: int = 0,
    ridge: float = RIDGE_OF_VALUES,
) -> Float[Tensor, "kv_heads columns v_head_dim"]:
    """Return the values nearest the right output (ridge regression towards `values`); the `first` stay."""
    weight = weights(queries, keys)
    missing = queries.target - (1 - weight.sum(-1, keepdim=True)) * queries.alone - weight @ values
    weight = weight[..., first:]
    gram = weight.transpose(1, 2) @ weight
    change = torch.linalg.solve(gram + _ridge(gram, ridge), weight.transpose(1, 2) @ missing)
    return torch.cat([values[:, :first], values[:, first:] + change], dim=1)


def attended(queries: Queries, columns: LayerKV) -> Float[Tensor, "n heads v_head_dim"]:
    """Compute the attention of the queries over columns [1, kv_heads, P, head_dim] and their own rows."""
    keys, values = columns.key[0].float(), columns.value[0].float()
    grouped = queries.by_head(keys.shape[0])
    weight = weights(grouped, keys)
    output = weight @ values + (1 - weight.sum(-1, keepdim=True)) * grouped.alone
    n, heads = queries.mass.shape
    return output.reshape(keys.shape[0], n, heads // keys.shape[0], -1).transpose(0, 1).flatten(1, 2)


def weights(
    queries: Queries, keys: Float[Tensor, "kv_heads columns head_dim"]
) -> Float[Tensor, "kv_heads queries columns"]:
    """Return the share of its attention that each query pays to each column; the rest is its own row's."""
    logits = queries.query @ keys.transpose(1, 2) * queries.scale
    return torch.cat([logits, queries.mass[..., None]], -1).softmax(-1)[..., :-1]


def _ridge(gram: Float[Tensor, "heads size size"], share: float) -> Float[Tensor, "heads size size"]:
    size = share * gram.diagonal(dim1=1, dim2=2).mean(-1) + 1e-12
    return size[:, None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
