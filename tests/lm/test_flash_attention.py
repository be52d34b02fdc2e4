"""Attention by flash kernels over sets of columns: against one softmax over all of them, naively, in float64.

The kernels of a CPU take a row at a time. Those of a GPU take packed sequences; here a naive function takes
their place, which knows only what they are given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from softprompt.injection import LayerKV
from softprompt.lm import flash_attention
from softprompt.lm.flash_layout import Layout, real_columns
from softprompt.lm.injected import Active, Columns
from softprompt.lm.masks import whole_mask

ROWS, HEADS, QUERIES, SIZE, SCALE = 4, 6, 5, 16, 0.3
LENGTHS = (
    7,
    3,
    6,
)  # of a cached context, a prefix and the call's own keys, of which the last 5 are its queries
OWN = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 1]], dtype=torch.bool)
EVERYONE = torch.ones(ROWS, QUERIES, dtype=torch.bool)
#: Where all rows share the last column only, row 2 none of the context, and row 3 none of the prefix.
CONTEXT = torch.tensor([[1] * 7, [0, 0, 1, 0, 1, 1, 1], [0] * 7, [0, 0, 0, 0, 0, 0, 1]], dtype=torch.bool)
PREFIX = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 1, 1], [0, 0, 0]], dtype=torch.bool)
TAIL = torch.arange(QUERIES) >= torch.tensor([[0], [3], [4], [2]])  # from another query on in each row


def masks(shared: str) -> tuple[Tensor, Tensor]:
    if shared == "none":
        return CONTEXT, PREFIX
    return CONTEXT, torch.tensor([[False, True, True]]).expand(ROWS, -1)


def tensors(kv_heads: int, shared: str, dtype=torch.float64) -> tuple[Tensor, list[LayerKV]]:
    """A query, and parts; of the prefix all, only the values, or nothing has one row for all."""
    generator = torch.Generator().manual_seed(0)

    def make(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    parts = []
    for number, length in enumerate(LENGTHS):
        is_prefix = number == 1
        of_keys = 1 if is_prefix and shared in ("prefix", "prefix, columns of each row") else ROWS
        of_values = 1 if is_prefix and shared != "none" else ROWS
        parts.append(LayerKV(make(of_keys, kv_heads, length, SIZE), make(of_values, kv_heads, length, SIZE)))
    return make(ROWS, HEADS, QUERIES, SIZE), parts


def layout(shared: str = "none") -> Layout:
    context, prefix = masks("none" if shared == "prefix, columns of each row" else shared)
    return Layout(OWN, QUERIES, [(context, EVERYONE), (prefix, TAIL)])


def seen(shared: str = "none") -> Tensor:
    """The mask [B, q, sum of columns], written out."""
    context, prefix = masks("none" if shared == "prefix, columns of each row" else shared)
    out = torch.zeros(ROWS, QUERIES, sum(LENGTHS), dtype=torch.bool)
    for row in range(ROWS):
        for query in range(QUERIES):
            own = [bool(OWN[row, k]) and k <= query + 1 for k in range(6)]
            after = [bool(c) and bool(TAIL[row, query]) for c in prefix[row]]
            out[row, query] = torch.tensor([*context[row].tolist(), *after, *own])
    return out


def naive(query: Tensor, parts: list[LayerKV], shown: Tensor) -> Tensor:
    """All parts copied for every row and query head, and joined, in float64: [B, q, heads, d]."""

    def joined(of: str) -> Tensor:
        rows = [getattr(part, of).double().expand(ROWS, -1, -1, -1) for part in parts]
        return torch.cat(rows, dim=2).repeat_interleave(HEADS // parts[0].key.shape[1], dim=1)

    scores = query.double() @ joined("key").transpose(2, 3) * SCALE
    return (scores.masked_fill(~shown[:, None], -1e30).softmax(-1) @ joined("value")).transpose(1, 2)


def leaves(query: Tensor, parts: list[LayerKV]) -> list[Tensor]:
    return [query, *(t for part in parts for t in (part.key, part.value))]


def assert_same(made: Tensor, expected: Tensor, given: list[Tensor], tolerance: float) -> None:
    """The outputs and gradients of real queries are the same; those of padding are zero."""
    real = OWN[:, 1:]
    assert not made[~real].any()
    close = {"atol": tolerance, "rtol": tolerance, "check_dtype": False}
    torch.testing.assert_close(made[real], expected[real], **close)
    weight = torch.randn(made.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mine = torch.autograd.grad((made * weight).sum(), given)
    theirs = torch.autograd.grad((expected * weight)[real].sum(), given)
    for a, b in zip(mine, theirs, strict=True):
        assert a.shape == b.shape and b.abs().max() > 0
        torch.testing.assert_close(a, b, **close)


def packed(query: Tensor, key: Tensor, value: Tensor, starts: Any, longest: Any, causal: bool, scale: float):
    """What a kernel for packed sequences computes, and the log-sum-exp."""
    out, lse, groups = (
        torch.zeros_like(query),
        query.new_zeros(query.shape[1::-1]),
        query.shape[1] // key.shape[1],
    )
    ends = [t.tolist() for t in starts]
    assert all(end[-1] == len(t) for end, t in zip(ends, (query, key), strict=True))
    assert longest == tuple(int(torch.tensor(end).diff().max()) for end in ends)
    for i in range(len(ends[0]) - 1):
        q, k = (slice(end[i], end[i + 1]) for end in ends)
        wide = [t[k].repeat_interleave(groups, dim=1).transpose(0, 1) for t in (key, value)]
        scores = query[q].transpose(0, 1) @ wide[0].transpose(1, 2) * scale
        if causal:
            n, m = scores.shape[1:]
            scores = scores.masked_fill(torch.arange(m) > torch.arange(n)[:, None] + m - n, -torch.inf)
        out[q], lse[:, q] = (scores.softmax(-1) @ wide[1]).transpose(0, 1), scores.logsumexp(-1)
    return out, lse


def packed_gradient(above, query, key, value, out, lse, starts, longest, causal, scale):
    """Its gradients from any output and log-sum-exp, by the equations of FlashAttention-2."""
    groups, grads = query.shape[1] // key.shape[1], [torch.zeros_like(t) for t in (query, key, value)]
    ends = [t.tolist() for t in starts]
    for i in range(len(ends[0]) - 1):
        q, k = (slice(end[i], end[i + 1]) for end in ends)
        one, do, o = (t[q].transpose(0, 1) for t in (query, above, out))
        wide = [t[k].repeat_interleave(groups, dim=1).transpose(0, 1) for t in (key, value)]
        scores = one @ wide[0].transpose(1, 2) * scale
        if causal:
            n, m = scores.shape[1:]
            scores = scores.masked_fill(torch.arange(m) > torch.arange(n)[:, None] + m - n, -torch.inf)
        weights = (scores - lse[:, q, None]).exp()
        of_scores = weights * (do @ wide[1].transpose(1, 2) - (do * o).sum(-1, keepdim=True)) * scale
        of_wide = [of_scores.transpose(1, 2) @ one, weights.transpose(1, 2) @ do]
        grads[0][q] = (of_scores @ wide[0]).transpose(0, 1)
        for grad, each in zip(grads[1:], of_wide, strict=True):
            grad[k] = each.unflatten(0, (-1, groups)).sum(1).transpose(0, 1)
    return tuple(grads)


@pytest.fixture(params=["rows in turns", "packed sequences"])
def kernels(request, monkeypatch) -> Callable[..., Tensor]:
    """`attend` with the kernels of a CPU, and with the interface that a GPU's have."""
    if request.param == "packed sequences":
        monkeypatch.setattr(flash_attention, "takes_rows", lambda device: False)
        monkeypatch.setattr(flash_attention, "packed_flash", packed)
        monkeypatch.setattr(flash_attention, "packed_flash_gradient", packed_gradient)
    return flash_attention.attend


@pytest.mark.parametrize("kv_heads", [6, 3, 1])
@pytest.mark.parametrize("shared", ["none", "prefix", "values", "prefix, columns of each row"])
def test_equals_one_softmax_over_all_columns(kernels, kv_heads, shared):
    query, parts = tensors(kv_heads, shared)
    expected = naive(query, parts, seen(shared))
    assert_same(kernels(query, parts, layout(shared), SCALE), expected, leaves(query, parts), 1e-10)


def test_rows_of_one_length_without_padding(kernels):
    query, parts = tensors(3, "prefix")
    whole = torch.ones(ROWS, 6, dtype=torch.bool)
    made = kernels(query, parts[1:], Layout(whole, QUERIES, [(torch.ones(ROWS, 3) > 0, EVERYONE)]), SCALE)
    shown = torch.cat(
        [torch.ones(ROWS, QUERIES, 3) > 0, torch.ones(QUERIES, 6).tril(1).expand(ROWS, -1, -1) > 0], 2
    )
    torch.testing.assert_close(made, naive(query, parts[1:], shown), atol=1e-10, rtol=0)


def test_columns_that_nobody_sees(kernels):
    query, parts = tensors(3, "none")
    nothing = Layout(OWN, QUERIES, [(CONTEXT, EVERYONE), (torch.zeros_like(PREFIX), EVERYONE)])
    shown = seen()
    shown[..., 7:10] = False
    made = kernels(query, parts, nothing, SCALE)
    real = OWN[:, 1:]
    torch.testing.assert_close(made[real], naive(query, parts, shown)[real], atol=1e-10, rtol=0)
    gradient = torch.autograd.grad(made.sum(), leaves(query, parts), allow_unused=True)
    assert gradient[3] is None and gradient[4] is None


def test_the_gradient_is_that_of_finite_differences():
    query, parts = tensors(3, "prefix")

    def attend(query: Tensor, *flat: Tensor) -> Tensor:
        again = [LayerKV(key, value) for key, value in zip(flat[::2], flat[1::2], strict=True)]
        return flash_attention.attend(query, again, layout("prefix"), SCALE)

    assert torch.autograd.gradcheck(attend, leaves(query, parts), fast_mode=True)


def test_bfloat16_is_as_exact_as_eager_attention():
    query, parts = tensors(3, "prefix", torch.bfloat16)
    shown = seen("prefix")
    full = [torch.cat([getattr(p, of).expand(ROWS, -1, -1, -1) for p in parts], 2) for of in ("key", "value")]
    key, value = (t.repeat_interleave(2, dim=1) for t in full)
    scores = (query @ key.transpose(2, 3) * SCALE).masked_fill(
        ~shown[:, None], torch.finfo(torch.bfloat16).min
    )
    eager = (scores.softmax(-1, dtype=torch.float32).to(torch.bfloat16) @ value).transpose(1, 2)
    made = flash_attention.attend(query, parts, layout("prefix"), SCALE)
    assert made.dtype == torch.bfloat16
    real = OWN[:, 1:]
    weight = torch.randn(made[real].shape, generator=torch.Generator().manual_seed(2))

    def with_gradients(out: Tensor) -> list[Tensor]:
        return [out[real], *torch.autograd.grad((out[real] * weight).sum(), leaves(query, parts))]

    wanted = [t.double() for t in with_gradients(naive(query, parts, shown))]

    def error(tensors: list[Tensor]) -> list[float]:
        return [(a.double() - b).square().mean().sqrt().item() for a, b in zip(tensors, wanted, strict=True)]

    for ours, theirs in zip(error(with_gradients(made)), error(with_gradients(eager)), strict=True):
        assert ours < 1.5 * theirs


def test_a_layout_as_a_mask_for_scores():
    assert torch.equal(layout().dense()[:, 0], seen())
    empty = LayerKV(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    columns = [Columns((empty,), CONTEXT), Columns((empty,), PREFIX, tail_only=True)]
    active = Active(columns, tail_start=torch.tensor([1, 4, 5, 3]), query_offset=1)
    own = Layout(OWN, QUERIES).dense()
    mask = whole_mask(active, columns, 0, torch.zeros(ROWS, 1, QUERIES, 1), 6, own, None)
    assert torch.equal(mask[:, 0], seen())


def test_real_columns_only_where_they_say_all():
    plain = {"q_length": 2, "kv_length": 5, "q_offset": 3, "batch_size": 2, "attention_mask": None}
    columns = real_columns(plain)
    assert columns is not None and columns.shape == (2, 5) and columns.all()
    others: list[dict[str, Any]] = [
        {"mask_function": lambda *_: True},  # a window, say
        {"kv_length": 8},  # a static cache has room behind the last token
        {"q_offset": torch.tensor(3)},
        {"kv_offset": 1},
        {"attention_mask": torch.ones(2, 4)},
    ]
    assert all(real_columns(plain | change) is None for change in others)


def test_suits_only_what_the_kernels_take():
    query, parts = tensors(3, "prefix")
    assert flash_attention.suits(query, parts, {"dropout": 0.0, "sliding_window": None})
    for option in ({"dropout": 0.1}, {"softcap": 30.0}, {"sliding_window": 8}, {"s_aux": torch.ones(6)}):
        assert not flash_attention.suits(query, parts, option)
    assert not flash_attention.suits(query.float(), parts, {})
    smaller = [LayerKV(part.key, part.value[..., :8]) for part in parts]
    assert not flash_attention.suits(query, smaller, {})
    assert not flash_attention.suits(
        query.to("meta"), [part.map(lambda t: t.to("meta")) for part in parts], {}
    )


def test_what_is_kept_for_the_backward_pass():
    """The packed vectors, the output and its log-sum-exp: nothing of the size of the scores."""
    query, parts = tensors(3, "prefix")
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        flash_attention.attend(query, parts, layout("prefix"), SCALE)
    largest = max(t.numel() for t in leaves(query, parts))
    assert max(kept) <= largest
