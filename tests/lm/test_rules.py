"""Which mask functions of transformers' can be asked about columns that are not in the call."""

from __future__ import annotations

import pytest
import torch
from transformers import masking_utils
from transformers.masking_utils import and_masks, causal_mask_function, or_masks

from softprompt.lm.visibility import rule_of

MASK = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])


def chunks():
    return and_masks(masking_utils.chunked_overlay(3, torch.tensor([2, 0])), causal_mask_function)


def images():
    """Gemma's: what belongs to one image sees itself. A table with a number for each column of the call."""
    table = torch.full(MASK.shape, -1)
    window = masking_utils.sliding_window_causal_mask_function(3)
    return or_masks(window, masking_utils.blockwise_overlay(table))


def packed():
    return and_masks(causal_mask_function, masking_utils.packed_sequence_mask_function(MASK.cumsum(-1)))


def test_a_rule_of_positions_can_be_asked_about_others():
    rule = rule_of({"mask_function": chunks(), "attention_mask": MASK})
    assert rule is not None
    # the first row is padded by two columns: its positions 4 and 5 are in the chunk of 3, 4, 5
    seen = rule.seen(torch.tensor([[5], [5]]), torch.tensor([[1, 2, 3, 4]]))
    assert seen.tolist() == [[[[False, False, True, True]]]] * 2


@pytest.mark.parametrize("function", [images, packed])
def test_a_table_of_the_columns_cannot(function):
    assert rule_of({"mask_function": function(), "attention_mask": MASK}) is None


def test_what_is_plainly_causal_needs_none():
    assert rule_of({"attention_mask": MASK}) is None
