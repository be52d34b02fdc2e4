"""The divergence over k + 1 classes against its formula, written out, in value and gradient."""

from __future__ import annotations

import pytest
import torch

from softprompt.lm import logit_rows
from softprompt.lm.divergence import divergence, top_k


def drawn(rows: int = 5, words: int = 23, kind=torch.float32, scale: float = 3.0):
    generator = torch.Generator().manual_seed(0)
    logits, teacher = (scale * torch.randn(rows, words, generator=generator, dtype=kind) for _ in range(2))
    return logits.requires_grad_(True), teacher


def naive(logits, teacher, k: int):
    """Sum over the classes of each row: the k likeliest tokens one by one, and all others as one."""
    losses = []
    for z, t in zip(logits, teacher, strict=True):
        p, q = t.softmax(0), z.softmax(0)
        known = set(p.argsort(descending=True)[:k].tolist())
        classes = [(p[i], q[i]) for i in known]
        rest = [i for i in range(len(p)) if i not in known]
        if rest:
            classes.append((p[rest].sum(), q[rest].sum()))
        losses.append(sum(a * (a / b).log() for a, b in classes))
    return torch.stack(losses)


@pytest.mark.parametrize("at_once", [1, 50, 10**6])
@pytest.mark.parametrize("k", [1, 4, 23])
def test_equals_the_formula(monkeypatch, k, at_once):
    monkeypatch.setattr(logit_rows, "NUMBERS_AT_ONCE", at_once)
    logits, teacher = drawn()
    result, reference = divergence(logits, *top_k(teacher, k)), naive(logits, teacher, k)
    torch.testing.assert_close(result, reference, atol=1e-5, rtol=1e-5)
    weights = torch.arange(1.0, 6.0)
    (mine,) = torch.autograd.grad((weights * result).sum(), logits)
    (theirs,) = torch.autograd.grad((weights * reference).sum(), logits)
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_gradient_by_differences():
    logits, teacher = drawn(3, 9, torch.float64, scale=1.0)
    ids, logprobs = top_k(teacher, 4)
    assert torch.autograd.gradcheck(lambda z: divergence(z, ids, logprobs.double()), logits)


def test_it_is_none_where_both_are_the_same_and_more_elsewhere():
    logits, teacher = drawn()
    torch.testing.assert_close(divergence(teacher, *top_k(teacher, 4)), torch.zeros(5), atol=1e-5, rtol=0)
    assert (divergence(logits, *top_k(teacher, 4)) > 0.01).all()


def test_a_teacher_that_is_sure_gives_a_finite_loss_and_gradient():
    teacher = torch.full((1, 8), -200.0)
    teacher[0, 3] = 200.0
    logits = torch.zeros(1, 8, requires_grad=True)
    loss = divergence(logits, *top_k(teacher, 2))
    torch.testing.assert_close(loss, torch.log(torch.tensor([8.0])))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    torch.testing.assert_close(gradient[0], torch.full((8,), 1 / 8) - torch.eye(8)[3])


def test_half_precision_is_summed_in_float32():
    logits, teacher = drawn(6, 2000, torch.bfloat16)
    exact = logits.detach().float().requires_grad_(True)
    known = top_k(teacher, 20)
    loss, reference = divergence(logits, *known), divergence(exact, *known)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, reference)
