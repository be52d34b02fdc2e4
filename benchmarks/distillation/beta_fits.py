"""A prefix is fitted to a text in four ways: see `beta`.

Where a bias is kept it is the last number of a key (see `wide`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from softprompt.injection import LayerKV
from softprompt.methods.matching import Queries, attended, biases, chosen, direction, match, solved

from .wide import HIDDEN

Fit = Callable[[int, Queries, LayerKV], LayerKV]  # of a layer, by its number
SHARES = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4)  # of an even budget: what a head may get

#: The error of a head (layer, head) by its number of columns.
Errors = Mapping[tuple[int, int], Mapping[int, float]]


def absorbed(length: int) -> Fit:
    return lambda _, queries, text: match(queries, text, length, keep_first=True)


def one_shift(length: int) -> Fit:
    """Move all keys of a head but the first by the mean log of the mass that is missing."""

    def fit(_: int, queries: Queries, text: LayerKV) -> LayerKV:
        keys, values = text.key[0].float(), text.value[0].float()
        grouped = queries.by_head(len(keys))
        fewer, near = chosen(grouped, keys, values, length, keep_first=True)
        masses = [(grouped.query @ k.transpose(1, 2) * queries.scale).logsumexp(-1) for k in (keys, fewer)]
        shift = (masses[0] - masses[1]).mean(1)[:, None, None] * direction(grouped)
        moved = torch.cat([fewer[:, :1], fewer[:, 1:] + shift], dim=1)
        return LayerKV(moved[None], solved(grouped, moved, near, first=1)[None])

    return fit


def kept(length: int) -> Fit:
    return lambda _, queries, text: with_biases(queries, text, length)


def with_biases(queries: Queries, text: LayerKV, length: int) -> LayerKV:
    """Choose keys, whose last number becomes their bias, and fit their values."""
    keys, values = text.key[0].float(), text.value[0].float()
    grouped = queries.by_head(len(keys))
    fewer, near = chosen(grouped, keys, values, length, keep_first=True)
    fewer[..., -1] = biases(grouped, keys, fewer, first=1)
    return LayerKV(fewer[None], solved(grouped, fewer, near, first=1)[None])


def by_head(lengths: Mapping[int, Sequence[int]], width: int) -> Fit:
    """Give head h of layer i `lengths[i][h]` columns; hidden ones fill up its `width`."""

    def fit(site: int, queries: Queries, text: LayerKV) -> LayerKV:
        parts = [
            _filled(with_biases(*part, n), width)
            for part, n in zip(_heads(queries, text), lengths[site], strict=True)
        ]
        return LayerKV(torch.cat([p.key for p in parts], dim=1), torch.cat([p.value for p in parts], dim=1))

    return fit


def _filled(columns: LayerKV, width: int) -> LayerKV:
    filled = columns.map(lambda t: torch.nn.functional.pad(t, (0, 0, 0, width - t.shape[2])))
    filled.key[..., columns.key.shape[2] :, -1] = HIDDEN
    return filled


def _heads(queries: Queries, text: LayerKV) -> Iterable[tuple[Queries, LayerKV]]:
    """Split a layer into its heads of keys, each with the queries that share it."""
    count = text.key.shape[1]
    size = queries.query.shape[1] // count
    for head in range(count):
        at = slice(head * size, (head + 1) * size)
        parts = (queries.query[:, at], queries.alone[:, at], queries.mass[:, at], queries.target[:, at])
        yield Queries(*parts, queries.scale), text.map(lambda t, h=head: t[:, h : h + 1])


def measuring(
    length: int, tokens: int, weights: Sequence[Tensor], errors: dict[tuple[int, int], dict[int, float]]
) -> Fit:
    """Fit an even budget, and note in `errors` what each head would lose with others.

    The error is that of a head's share of the layer's output, squared, behind the projection `weights`
    [hidden, heads · v_head_dim] of each layer.
    """

    def fit(site: int, queries: Queries, text: LayerKV) -> LayerKV:
        weight = weights[site].float().chunk(text.key.shape[1], dim=1)
        for head, (of_head, columns) in enumerate(_heads(queries, text)):
            for n in numbers(length, tokens):
                off = attended(of_head, with_biases(of_head, columns, n)) - of_head.target
                lost = (off.flatten(1) @ weight[head].T).square().sum(1).mean()
                errors.setdefault((site, head), {})[n] = float(lost)
        return with_biases(queries, text, length)

    return fit


def numbers(length: int, tokens: int) -> list[int]:
    """Return the numbers of columns that a head may get."""
    return sorted({min(tokens, max(2, round(length * share))) for share in SHARES})


def budgets(errors: Errors, length: int) -> dict[int, list[int]]:
    """Give out `length` columns a head in all, where each lessens the error most; by layer and head.

    A head gets the next of its numbers of columns, or a larger one where that lessens more for a column.
    """
    sizes = {head: sorted(of_head) for head, of_head in errors.items()}
    at = dict.fromkeys(errors, 0)
    left = length * len(errors) - sum(sizes[head][0] for head in errors)
    queue: list[Any] = []

    def offer(head: tuple[int, int]) -> None:
        known, now = errors[head], sizes[head][at[head]]
        gains = [((known[now] - known[n]) / (n - now), i) for i, n in enumerate(sizes[head]) if n > now]
        if gains and (best := max(gains))[0] > 0:
            heapq.heappush(queue, (-best[0], head, best[1]))

    for head in errors:
        offer(head)
    while queue:
        _, head, index = heapq.heappop(queue)
        more = sizes[head][index] - sizes[head][at[head]]
        if more <= left:
            left, at[head] = left - more, index
            offer(head)
    layers: dict[int, list[int]] = {}
    for site, head in sorted(errors):
        layers.setdefault(site, []).append(sizes[site, head][at[site, head]])
    return layers
