"""The loss over rows at a time against torch's, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from softprompt.lm import logit_rows
from softprompt.training.cross_entropy import cross_entropy


def drawn(rows: int, words: int, kind=torch.float32):
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(rows, words, generator=generator)).to(kind)
    return logits.requires_grad_(True), torch.randint(words, (rows,), generator=generator)


@pytest.mark.parametrize("at_once", [1, 50, 10**6])
@pytest.mark.parametrize("rows", [1, 7])
def test_equals_torch(monkeypatch, rows, at_once):
    monkeypatch.setattr(logit_rows, "NUMBERS_AT_ONCE", at_once)
    logits, targets = drawn(rows, 23)
    loss, reference = cross_entropy(logits, targets).mean(), functional.cross_entropy(logits, targets)
    torch.testing.assert_close(loss, reference)
    (mine,) = torch.autograd.grad(3 * loss, logits)
    (theirs,) = torch.autograd.grad(3 * reference, logits)
    torch.testing.assert_close(mine, theirs, atol=1e-7, rtol=1e-5)


def test_gradient_by_differences():
    logits, targets = drawn(4, 9, torch.float64)
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, targets), logits)


def test_half_precision_is_summed_in_float32(monkeypatch):
    monkeypatch.setattr(logit_rows, "NUMBERS_AT_ONCE", 5000)
    logits, targets = drawn(6, 2000, torch.bfloat16)
    exact = logits.detach().float().requires_grad_(True)
    loss, reference = cross_entropy(logits, targets).mean(), functional.cross_entropy(exact, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, reference)
    (mine,), (theirs,) = torch.autograd.grad(loss, logits), torch.autograd.grad(reference, exact)
    assert mine.dtype == torch.bfloat16
    torch.testing.assert_close(mine, theirs.bfloat16())


def test_no_copy_of_all_logits_is_kept():
    """What the graph holds beside the logits is a number a row."""
    logits, targets = drawn(64, 1000)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        cross_entropy(logits, targets)
    others = [t for t in kept if t.data_ptr() != logits.data_ptr()]
    assert len(others) < len(kept) and sum(t.numel() for t in others) <= 2 * 64
