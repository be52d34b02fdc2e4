"""Injections are data: rows of different kinds and lengths are concatenated, selected and repeated."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from softprompt import methods
from softprompt.injection import Injection, LayerKV, Prefix, SoftTokens, injection_rows
from softprompt.lm.ragged import Ragged
from softprompt.methods.base import Features, kv_injection, soft_injection


def soft(rows: int, length: int, start: float = 1.0) -> SoftTokens:
    vectors = torch.arange(rows * length * 2.0).reshape(rows, length, 2) + start
    return SoftTokens(vectors, torch.ones(rows, length, dtype=torch.bool))


def prefix(rows: int, length: int, gate: float | None = None, absent: int | None = None) -> Prefix:
    def layer(index: int) -> LayerKV | None:
        if index == absent:
            return None
        key = torch.randn(rows, 2, length, 3)
        return LayerKV(key, key + 1, None if gate is None else torch.full((rows, 4), gate))

    return Prefix((layer(0), layer(1)), torch.ones(rows, length, dtype=torch.bool))


def test_channels_names_the_parts_that_are_set():
    assert Injection().channels() == {}
    assert list(Injection(after=soft(1, 2), kv_before=prefix(1, 2)).channels()) == ["after", "kv_before"]
    assert injection_rows(Injection()) == 1 and injection_rows(Injection(after=soft(3, 2))) == 3


def test_cat_pads_on_the_left_and_masks():
    """The vectors nearest the input should keep their distance to it."""
    merged = Injection.cat([Injection(before=soft(2, 1)), Injection(before=soft(1, 3, 100.0))]).before
    assert merged.mask.tolist() == [[False, False, True], [False, False, True], [True, True, True]]
    assert merged.vectors[0].tolist() == [[0, 0], [0, 0], [1, 2]]
    assert merged.vectors[2].tolist() == [[100, 101], [102, 103], [104, 105]]


def test_cat_of_different_kinds_and_row_counts():
    parts = [
        Injection(before=soft(2, 1)),
        Injection(kv_after=prefix(3, 4)),
        Injection(),
        Injection(kv_after=prefix(1, 2), after=soft(1, 5)),
    ]
    merged = Injection.cat(parts)
    assert set(merged.channels()) == {"before", "kv_after", "after"}
    assert {name: part.mask.sum(1).tolist() for name, part in merged.channels().items()} == {
        "before": [1, 1, 0, 0, 0, 0, 0],
        "kv_after": [0, 0, 4, 4, 4, 0, 2],
        "after": [0, 0, 0, 0, 0, 0, 5],
    }
    layer = merged.kv_after.layers[0]
    assert layer.key.shape == layer.value.shape == (7, 2, 4, 3) and layer.gate is None
    assert torch.equal(layer.key[2:5], parts[1].kv_after.layers[0].key)
    assert torch.equal(layer.value[6, :, 2:], parts[3].kv_after.layers[0].value[0])


def test_cat_gives_rows_without_an_adapter_a_closed_gate():
    first, last = prefix(1, 2, gate=0.7), prefix(1, 3, gate=0.2, absent=0)
    merged = Injection.cat([Injection(adapter=first), Injection(), Injection(adapter=last)]).adapter
    assert merged.layers[0].gate[:, 0].tolist() == torch.tensor([0.7, 0.0, 0.0]).tolist()
    assert merged.layers[1].gate[:, 0].tolist() == torch.tensor([0.7, 0.0, 0.2]).tolist()


def test_cat_of_one_injection_returns_it():
    one = Injection(before=soft(2, 1))
    assert Injection.cat([one]) is one


def test_cat_expands_layers_that_serve_several_rows():
    """A prefix that rows share is stored once: [1, …] layers under a [B, P] mask."""
    shared = Prefix(prefix(1, 2).layers, torch.ones(3, 2, dtype=torch.bool))
    merged = Injection.cat([Injection(kv_before=shared), Injection(kv_before=prefix(1, 2))]).kv_before
    assert merged.layers[0].key.shape[0] == 4
    assert torch.equal(merged.layers[0].key[2], shared.layers[0].key[0])


def test_repeat_and_select():
    both = Injection(before=soft(2, 1), kv_before=prefix(2, 3, absent=1))
    twice = both.repeat_rows(2)
    assert twice.before.vectors[:, 0, 0].tolist() == [1, 1, 3, 3]
    assert twice.kv_before.layers[1] is None and twice.kv_before.mask.shape == (4, 3)
    assert torch.equal(twice.kv_before.layers[0].key[3], both.kv_before.layers[0].key[1])
    chosen = both.select(torch.tensor([1, 1, 0]))
    assert chosen.before.vectors[:, 0, 0].tolist() == [3, 3, 1]
    assert both.repeat_rows(1) is both
    assert Injection().repeat_rows(3) == Injection()


def test_gradient_flows_through_cat():
    vectors = torch.ones(1, 2, 2, requires_grad=True)
    part = Injection(before=SoftTokens(vectors, torch.ones(1, 2, dtype=torch.bool)))
    Injection.cat([part, Injection(before=soft(1, 4)), part]).before.vectors.sum().backward()
    assert vectors.grad.tolist() == [[[2, 2], [2, 2]]]


MASK = torch.ones(2, 3, dtype=torch.bool)
WRONG_SHAPES = {
    "vectors without a hidden size": lambda: SoftTokens(torch.ones(2, 3), MASK),
    "a mask of another length": lambda: SoftTokens(torch.ones(2, 4, 8), MASK),
    "a mask of numbers": lambda: SoftTokens(torch.ones(2, 3, 8), MASK.float()),
    "vectors of whole numbers": lambda: SoftTokens(torch.ones(2, 3, 8).int(), MASK),
    "a value of other heads": lambda: LayerKV(torch.ones(2, 4, 3, 8), torch.ones(2, 5, 3, 8)),
    "a value of another length": lambda: LayerKV(torch.ones(2, 4, 3, 8), torch.ones(2, 4, 6, 8)),
    "rows that do not broadcast": lambda: LayerKV(torch.ones(2, 4, 3, 8), torch.ones(3, 4, 3, 8)),
    "a gate of one axis": lambda: LayerKV(torch.ones(2, 4, 3, 8), torch.ones(2, 4, 3, 8), torch.ones(4)),
    "a prefix mask of one row": lambda: Prefix((None,), MASK[0]),
    "features under a shorter mask": lambda: Features(torch.ones(2, 5, 8), MASK),
    "soft tokens of one row": lambda: soft_injection(torch.ones(3, 8), "after"),
}


@pytest.mark.parametrize("wrong", WRONG_SHAPES.values(), ids=WRONG_SHAPES)
def test_a_wrong_shape_raises(wrong):
    with pytest.raises(TypeCheckError):
        wrong()


def test_right_shapes_do_not_raise():
    """Rows may broadcast, values may differ from keys in size, and cached rows may be separate."""
    layer = LayerKV(torch.ones(1, 4, 3, 8), torch.ones(2, 4, 3, 5), torch.ones(2, 12))
    assert kv_injection((None, layer), "after").kv_after.mask.shape == (1, 3)
    rows = Ragged([torch.ones(4, 3, 8), torch.ones(4, 2, 8)])
    assert LayerKV(rows, rows).key is rows
    with pytest.raises(TypeCheckError):
        LayerKV(rows, torch.ones(2, 4, 2, 8))


def test_methods_check_the_shape_of_prompt_ids(llama, setting):
    method = methods.build("prompt-tuning", setting(llama))
    with pytest.raises(TypeCheckError):
        method(torch.tensor([[0, 1]]))
    with pytest.raises(TypeCheckError):
        method(torch.tensor([0.0, 1.0]))
