"""Attention as three products against transformers' fused one: values and gradients."""

from __future__ import annotations

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from softprompt.lm import grouped


class Layer:
    """What sdpa_attention_forward asks of a module."""

    num_key_value_groups = 3
    is_causal = True


def tensors(kv_heads: int = 3):
    torch.manual_seed(0)
    query = torch.randn(4, 9, 5, 16, requires_grad=True)
    key, value = (torch.randn(4, kv_heads, 11, 16, requires_grad=True) for _ in range(2))
    return query, key, value


def masks():
    seen = torch.rand(4, 1, 5, 11, generator=torch.Generator().manual_seed(1)) > 0.3
    additive = torch.where(seen, 0.0, torch.finfo(torch.float32).min)
    return {"bool": seen, "additive": additive, "none": None}


@pytest.mark.parametrize("mask", ["bool", "additive", "none"])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_equals_the_fused_kernel_in_value_and_gradient(mask, scaling):
    module = Layer()
    module.is_causal = False  # without a mask, nothing is hidden
    ours, theirs = tensors(), tensors()
    mine = grouped.attend(*ours, masks()[mask], scaling)
    fused, _ = sdpa_attention_forward(module, *theirs, masks()[mask], scaling=scaling)  # type: ignore[arg-type]
    torch.testing.assert_close(mine, fused, atol=1e-5, rtol=1e-5)
    weight = torch.randn_like(mine)
    for a, b in zip(
        torch.autograd.grad((mine * weight).sum(), ours),
        torch.autograd.grad((fused * weight).sum(), theirs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_values_may_have_another_size_than_keys():
    query, key, _ = tensors()
    value = torch.randn(4, 3, 11, 7)
    out = grouped.attend(query, key, value, None, None)
    full = key.repeat_interleave(3, dim=1)
    weights = (query @ full.transpose(2, 3) / 4).softmax(-1)
    torch.testing.assert_close(out, (weights @ value.repeat_interleave(3, dim=1)).transpose(1, 2))


def test_a_row_that_sees_nothing_gives_no_nan():
    query, key, value = tensors()
    hidden = torch.zeros(4, 1, 5, 11, dtype=torch.bool)
    assert torch.isfinite(grouped.attend(query, key, value, hidden, None)).all()


def test_only_where_gradients_are_wanted_and_nothing_unknown_is_asked():
    query, key, value = tensors()
    assert grouped.suits(query, key, value, {"dropout": 0.0})
    assert not grouped.suits(query, key, value, {"dropout": 0.1})
    assert not grouped.suits(query, key, value, {"softcap": 30.0})
    assert not grouped.suits(query, key, value, {"position_bias": torch.zeros(1)})
    assert not grouped.suits(query.detach(), key.detach(), value.detach(), {})
    with torch.no_grad():
        assert not grouped.suits(query, key, value, {})
