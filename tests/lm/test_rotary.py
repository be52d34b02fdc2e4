"""Moving keys: exact, additive, and found for every way of turning."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from softprompt.errors import SoftPromptError
from softprompt.lm.context import pack_right
from softprompt.lm.rotary import Rotation, candidates, find_rotation

FREQUENCIES = 10000.0 ** -(torch.arange(0, 8, 2) / 8)


def key(rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 2, 5, 8, generator=torch.Generator().manual_seed(0))


def test_turn_equals_transformers_rotary(llama, close):
    """A key turned to position 3 and moved by 9 is the one turned to 12, and by -20 the one at -17."""
    rotary = llama.model.model.rotary_emb
    raw = key()

    def at(position):
        cos, sin = rotary(raw, torch.full((2, 5), position))
        return apply_rotary_pos_emb(raw, raw, cos, sin)[0]

    found = [t for t in candidates(llama.model) if t.pairing == "half" and not t.last]
    turn = next(t for t in found if t.frequencies is not None and (t.frequencies > 0).all())
    for delta in (9, -20, 0):
        close(turn(at(3), delta), at(3 + delta))


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_turn_is_a_rotation(pairing, close):
    turn = Rotation(FREQUENCIES, pairing)
    moved = turn(key(), 7)
    close(turn(moved, -7), key())
    close(turn(turn(key(), 3), 4), moved)
    close(moved.norm(dim=-1), key().norm(dim=-1))
    # what attention sees depends on the distance alone
    close((turn(key(), 11) * turn(key(), 5)).sum(-1), (turn(key(), 6) * key()).sum(-1))


def test_turn_by_row_and_partially(close):
    turn = Rotation(FREQUENCIES[:2])  # half of the eight dimensions turn
    by_row = turn(key(), torch.tensor([4, 9]))
    close(by_row[:1], turn(key()[:1], 4))
    close(by_row[1:], turn(key()[1:], 9))
    assert torch.equal(by_row[..., 4:], key()[..., 4:]) and not torch.equal(by_row[..., :4], key()[..., :4])
    one_for_all = turn(key(1), torch.tensor([4, 9]))  # a prefix shared by rows of unlike lengths
    close(one_for_all[1:], turn(key(1), 9))


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_find_rotation_picks_the_right_one(pairing):
    options = [
        Rotation(None),
        *(Rotation(f, p) for f in (FREQUENCIES, FREQUENCIES / 3) for p in ("half", "interleaved")),
    ]
    right = Rotation(FREQUENCIES / 3, pairing)
    found = find_rotation(options, key(), right(key(), 5), 5, 1e-3)
    assert (
        found is not None and found.pairing == pairing and torch.equal(found.frequencies, right.frequencies)
    )
    assert find_rotation(options, key(), key(), 5, 1e-3).frequencies is None
    assert find_rotation(options, key(), Rotation(FREQUENCIES * 2)(key(), 5), 5, 1e-3) is None


@pytest.mark.parametrize(
    ("family", "positions"), [("llama", "rotary"), ("qwen3", "rotary"), ("gpt2", "absolute")]
)
def test_families(lms, family, positions):
    assert lms(family).spec.positions == positions


def test_kv_of_stands_right_ahead(lms, close):
    """The keys of a text at -P … -1, moved by P, are those the model itself computes from position 0."""
    for family in ("llama", "qwen3", "gpt2"):
        lm = lms(family)
        with torch.no_grad():
            own = lm.model(torch.tensor([[5, 9, 70]]), use_cache=True).past_key_values
        for layer, reference in zip(lm.move(lm.kv_of([5, 9, 70]), 3), own.layers, strict=True):
            close(layer.key, reference.keys)
            close(layer.value, reference.values)


def test_unknown_turn_is_refused_only_where_it_is_needed(new_lm, rows_to_batch):
    lm = new_lm("llama")
    layers = lm.kv_of([5, 6])
    lm._rotations = (None,) * 3
    with pytest.raises(SoftPromptError, match="cannot be moved") as caught:
        lm.kv_of([5, 6])
    assert "placement=before" in caught.value.fix
    from softprompt.injection import Injection, Prefix

    prefix = Prefix(layers, torch.ones(1, 2, dtype=torch.bool))
    batch = rows_to_batch([[1, 2]], [[3]])
    assert lm.logits(batch, Injection(kv_before=prefix)).shape == (1, 1, 101)
    with pytest.raises(SoftPromptError):
        lm.logits(batch, Injection(kv_after=prefix))


def test_shapes_are_checked_at_every_call():
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(TypeCheckError):
        pack_right(torch.ones(2, 4, 8), mask)
    with pytest.raises(TypeCheckError):
        Rotation(FREQUENCIES)(key()[0], 1)  # no axis of rows
