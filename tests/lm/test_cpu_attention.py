"""Attention over keys and values in parts: against one softmax over all, naively, in float64."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from softprompt.injection import Injection, LayerKV, Prefix
from softprompt.lm import attention, cpu_attention

ROWS, HEADS, QUERIES, SIZE = 4, 6, 5, 16
LENGTHS = (7, 3, 5)  # of a cached context, a prefix and the sequence's own keys
ALL = sum(LENGTHS)
SHARED = {"none": (False, False, False), "prefix": (False, True, False), "two": (True, True, False)}


def tensors(kv_heads: int = 3, shared: str = "prefix", v_size: int = SIZE, dtype=torch.float64):
    """A query, and parts of which some have one row for all."""
    generator = torch.Generator().manual_seed(0)

    def make(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    parts = []
    for length, one_row in zip(LENGTHS, SHARED[shared], strict=True):
        rows = 1 if one_row else ROWS
        parts.append(LayerKV(make(rows, kv_heads, length, SIZE), make(rows, kv_heads, length, v_size)))
    return make(ROWS, HEADS, QUERIES, SIZE), parts


def some_seen() -> Tensor:
    """A mask [B, 1, q, sum of k] that hides a third of the columns."""
    return torch.rand(ROWS, 1, QUERIES, ALL, generator=torch.Generator().manual_seed(1)) > 0.3


def masks() -> dict[str, Tensor | None]:
    seen = some_seen()
    additive = torch.where(seen, 0.0, torch.finfo(torch.float32).min)
    of_heads = additive + torch.arange(HEADS)[None, :, None, None] / HEADS * torch.arange(ALL)
    return {"none": None, "bool": seen, "additive": additive, "of each head": of_heads}


def leaves(query: Tensor, parts: list[LayerKV]) -> list[Tensor]:
    return [query, *(t for part in parts for t in (part.key, part.value))]


def naive(query: Tensor, parts: list[LayerKV], mask: Tensor | None, scaling: float) -> Tensor:
    """All parts copied for every row and query head, and joined, in float64."""

    def joined(of: str) -> Tensor:
        rows = [getattr(part, of).double().expand(ROWS, -1, -1, -1) for part in parts]
        return torch.cat(rows, dim=2).repeat_interleave(HEADS // parts[0].key.shape[1], dim=1)

    scores = query.double() @ joined("key").transpose(2, 3) * scaling
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    return (scores.softmax(-1) @ joined("value")).transpose(1, 2)


def assert_same(made: Tensor, expected: Tensor, of_made: list[Tensor], of_expected: list[Tensor], tolerance):
    close = {"atol": tolerance, "rtol": tolerance, "check_dtype": False}
    torch.testing.assert_close(made, expected, **close)
    weight = torch.randn(made.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    mine = torch.autograd.grad((made * weight).sum(), of_made)
    theirs = torch.autograd.grad((expected * weight).sum(), of_expected)
    for a, b in zip(mine, theirs, strict=True):
        assert a.shape == b.shape
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, **close)


@pytest.mark.parametrize("mask", masks())
@pytest.mark.parametrize(("kv_heads", "shared"), [*product([6, 3, 1], SHARED)])
def test_equals_one_softmax_over_all_parts(mask, kv_heads, shared):
    query, parts = tensors(kv_heads, shared, v_size=7)
    expected = naive(query, parts, masks()[mask], 0.3)
    made = cpu_attention.attend(query, parts, masks()[mask], 0.3)
    assert made.is_contiguous()  # as models take it for granted of their attention function
    assert_same(made, expected, leaves(query, parts), leaves(query, parts), 1e-10)


def test_the_gradient_is_that_of_finite_differences():
    query, parts = tensors(v_size=4)

    def attend(query: Tensor, *flat: Tensor) -> Tensor:
        again = [LayerKV(key, value) for key, value in zip(flat[::2], flat[1::2], strict=True)]
        return cpu_attention.attend(query, again, some_seen(), None)

    assert torch.autograd.gradcheck(attend, leaves(query, parts), fast_mode=True)


@pytest.mark.parametrize("frozen", [(0, 1, 2), (0, 2)])
def test_gradients_only_where_they_are_wanted(frozen):
    query, parts = tensors()
    expected = naive(query, parts, None, SIZE**-0.5)
    held = [LayerKV(p.key.detach(), p.value.detach()) if i in frozen else p for i, p in enumerate(parts)]
    wanted = [query, *(t for i in range(3) if i not in frozen for t in (parts[i].key, parts[i].value))]
    assert_same(cpu_attention.attend(query, held, None, None), expected, wanted, wanted, 1e-10)


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("mask", ["bool", "none"])
def test_equals_the_fused_kernel_in_float32(mask, scaling):
    class Layer:
        """What sdpa_attention_forward asks of a module."""

        num_key_value_groups = 2
        is_causal = False  # without a mask, nothing is hidden

    ours, theirs = tensors(shared="none", dtype=torch.float32), tensors(shared="none", dtype=torch.float32)
    key, value = (torch.cat([getattr(part, of) for part in theirs[1]], dim=2) for of in ("key", "value"))
    fused, _ = sdpa_attention_forward(Layer(), theirs[0], key, value, masks()[mask], scaling=scaling)  # type: ignore[arg-type]
    made = cpu_attention.attend(*ours, masks()[mask], scaling)
    assert_same(made, fused, leaves(*ours), leaves(*theirs), 1e-5)


def test_bfloat16_is_as_exact_as_the_models_own_eager_attention():
    query, parts = tensors(dtype=torch.bfloat16)
    mask = some_seen()
    exact = naive(query, parts, mask, 0.25)
    full = [torch.cat([getattr(p, of).expand(ROWS, -1, -1, -1) for p in parts], 2) for of in ("key", "value")]
    key, value = (t.repeat_interleave(2, dim=1) for t in full)
    scores = (query @ key.transpose(2, 3) * 0.25).masked_fill(~mask, torch.finfo(torch.bfloat16).min)
    eager = (scores.softmax(-1, dtype=torch.float32).to(torch.bfloat16) @ value).transpose(1, 2)
    made = cpu_attention.attend(query, parts, mask, 0.25)
    assert made.dtype == torch.bfloat16

    def error(tensors) -> list[float]:
        return [(a.double() - b).square().mean().sqrt().item() for a, b in zip(tensors, wanted, strict=True)]

    weight = torch.randn(made.shape, generator=torch.Generator().manual_seed(2))

    def with_gradients(out: Tensor) -> list[Tensor]:
        return [out, *torch.autograd.grad((out * weight).sum(), leaves(query, parts))]

    wanted = [t.double() for t in with_gradients(exact)]
    for ours, theirs in zip(error(with_gradients(made)), error(with_gradients(eager)), strict=True):
        assert ours < 1.5 * theirs


def test_a_row_that_sees_nothing_gives_no_nan():
    query, parts = tensors()
    hidden = torch.zeros(ROWS, 1, QUERIES, ALL, dtype=torch.bool)
    hidden[1:] = some_seen()[1:]
    made = cpu_attention.attend(query, parts, hidden, None)
    assert torch.isfinite(made).all()
    gradients = torch.autograd.grad(made.square().sum(), leaves(query, parts))
    assert all(torch.isfinite(g).all() for g in gradients)
    # and changes nothing for the others
    whole = cpu_attention.attend(query, parts, some_seen(), None)
    torch.testing.assert_close(made[1:], whole[1:], atol=1e-12, rtol=0)


@pytest.mark.parametrize("mask", ["bool", "additive"])
@pytest.mark.parametrize("kv_heads", [6, 3, 1])
@torch.no_grad()
def test_the_fused_kernel_takes_keys_of_fewer_heads(kv_heads, mask):
    query, parts = tensors(kv_heads, "none", dtype=torch.float32)
    key, value = (torch.cat([getattr(part, of) for part in parts], dim=2) for of in ("key", "value"))
    made = cpu_attention.shared(query, key, value, masks()[mask], 0.3)
    wanted = naive(query, parts, masks()[mask], 0.3)
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-5, check_dtype=False)
    hidden = masks()["bool"].expand(ROWS, -1, QUERIES, -1).clone()
    hidden[0, :, 0] = False  # padding sees nothing
    assert torch.isfinite(cpu_attention.shared(query, key, value, hidden, None)).all()


def test_keys_are_shared_only_where_that_is_known_to_be_right():
    query, mask = torch.zeros(1, 4, 2, 8), torch.ones(1, 1, 2, 5, dtype=torch.bool)
    with torch.no_grad():
        assert cpu_attention.can_share(query, mask, {"scaling": 0.3})
        assert not cpu_attention.can_share(query, None, {})  # the kernel itself masks
        assert not cpu_attention.can_share(query[:, :, :1], mask, {})  # transformers' own way is faster
        assert not cpu_attention.can_share(query, mask, {"position_bias": torch.zeros(1)})
    assert not cpu_attention.can_share(query, mask, {})


@pytest.mark.parametrize("shared", [True, False])
def test_what_is_kept_for_the_backward_pass(shared):
    """The parts as they came, the query and the weights: no copy of a part, no second matrix of scores."""
    query, parts = tensors(shared="prefix" if shared else "none")
    given = {t.data_ptr() for t in leaves(query, parts)}
    copies = []

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in given:
            copies.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        cpu_attention.attend(query, parts, None, None)
    assert copies == [ROWS * HEADS * QUERIES * ALL]


@pytest.mark.parametrize("gradient", [True, False])
def test_a_shared_prefix_reaches_the_products_as_one_row(llama, rows_to_batch, monkeypatch, gradient):
    batch = rows_to_batch([[5, 6, 7], [9], [4, 8]], [[1], [2], [3]])
    layers = tuple(layer.map(lambda t: t.clone().requires_grad_()) for layer in llama.kv_of([3, 4]))
    injection = Injection(kv_before=Prefix(layers, torch.ones(1, 2, dtype=torch.bool)))
    seen = []
    plain = cpu_attention.attend

    def attend(query, parts, mask, scaling):
        seen.append([part.key.shape[0] for part in parts])
        return plain(query, parts, mask, scaling)

    monkeypatch.setattr(attention.cpu_attention, "attend", attend)
    with torch.set_grad_enabled(gradient):
        llama.logits(batch, injection, llama.prefill(batch, injection))
    assert seen[-len(layers) :] == [[3, 1, 3]] * len(layers)  # context, prefix, own


def test_suits_only_what_it_knows():
    query, parts = tensors()
    assert cpu_attention.suits(query, parts, {"dropout": 0.0})
    assert not cpu_attention.suits(query, parts, {"dropout": 0.1})
    assert not cpu_attention.suits(query, parts, {"softcap": 30.0})
    assert not cpu_attention.suits(query, parts, {"position_bias": torch.zeros(1)})
    assert not cpu_attention.suits(query.to("meta"), parts, {})


def test_suits_gradients_and_few_queries_over_several_parts():
    query, parts = tensors()
    many = query.repeat(1, 1, 20, 1)
    assert cpu_attention.suits(many, parts, {})
    assert not cpu_attention.suits(query.repeat(500, 1, 100, 1), parts, {})  # too many scores
    with torch.no_grad():
        assert cpu_attention.suits(query, parts, {})
        assert not cpu_attention.suits(many, parts, {})
        assert not cpu_attention.suits(query, parts[-1:], {})  # the plain model's own attention
        assert not cpu_attention.suits(query[:1], parts, {})  # of one row, joining is cheap
    frozen = [LayerKV(part.key.detach(), part.value.detach()) for part in parts]
    assert not cpu_attention.suits(many.detach(), frozen, {})
