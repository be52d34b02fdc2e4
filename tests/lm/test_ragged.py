"""Rows that are not copied side by side count as the tensor that they stand for."""

from __future__ import annotations

import pytest
import torch

from softprompt.injection import LayerKV
from softprompt.lm import cpu_attention
from softprompt.lm.ragged import Ragged, as_tensor

LENGTHS, HEADS, SIZE = (5, 2, 7), 3, 8


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def keys() -> Ragged:
    return Ragged([drawn(HEADS, n, SIZE, seed=i) for i, n in enumerate(LENGTHS)])


@pytest.fixture
def values() -> Ragged:
    return Ragged([drawn(HEADS, n, 2 * SIZE, seed=10 + i) for i, n in enumerate(LENGTHS)])


def test_padded_stands_at_the_right(keys):
    whole = keys.padded()
    assert whole.shape == keys.shape == (3, HEADS, 7, SIZE)
    for row, own, n in zip(whole, keys.rows, LENGTHS, strict=True):
        assert torch.equal(row[:, 7 - n :], own) and not row[:, : 7 - n].any()
    assert as_tensor(whole) is whole and torch.equal(as_tensor(keys), whole)


def test_rows_chosen_repeated_and_cast(keys):
    chosen = torch.tensor([2, 0, 2])
    assert torch.equal(keys[chosen].padded(), keys.padded()[chosen])
    assert torch.equal(keys.repeat_interleave(2).padded(), keys.padded().repeat_interleave(2, dim=0))
    assert keys[torch.tensor([1])].shape == (1, HEADS, 2, SIZE)  # no wider than its own longest
    assert keys.to(torch.float32).padded().dtype == torch.float32


def test_attention_over_ragged_rows_is_that_over_the_tensor(keys, values):
    query, own = drawn(3, 2 * HEADS, 4, SIZE, seed=20), drawn(3, HEADS, 4, SIZE, seed=21)
    prefix = LayerKV(drawn(1, HEADS, 6, SIZE, seed=22), drawn(1, HEADS, 6, 2 * SIZE, seed=23))
    wide = drawn(3, HEADS, 4, 2 * SIZE, seed=24)
    real = torch.tensor([[False] * (7 - n) + [True] * n for n in LENGTHS])
    mask = torch.cat([real, torch.ones(3, 10, dtype=torch.bool)], dim=1)[:, None, None].expand(-1, 1, 4, -1)

    def attended(first: LayerKV) -> tuple[torch.Tensor, ...]:
        leaves = [query, prefix.key, prefix.value, own, wide]
        leaves = [t.detach().clone().requires_grad_() for t in leaves]
        q, k, v, own_key, own_value = leaves
        parts = [first, LayerKV(k, v), LayerKV(own_key, own_value)]
        out = cpu_attention.attend(q, parts, mask, None)
        return out.detach(), *torch.autograd.grad((out * out).sum(), leaves)

    for one, other in zip(
        attended(LayerKV(keys, values)),  # type: ignore[arg-type]
        attended(LayerKV(keys.padded(), values.padded())),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
