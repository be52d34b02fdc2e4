"""The method keeps every contract of softprompt, and a test of its own checks what is special about it."""

from __future__ import annotations

import torch
from low_rank_prompt import LowRankPrompt, brevity, max_lines

from softprompt.testing import check_method


def test_the_contracts_of_a_method():
    checked = check_method(LowRankPrompt, options=[{}, {"rank": 1}])
    assert not checked.refused


def test_the_learned_part_has_the_rank():
    method = LowRankPrompt(torch.zeros(2, 6, 8), 3, "after", torch.Generator().manual_seed(0))
    torch.nn.init.normal_(method.right)
    vectors = method(torch.tensor([1])).after.vectors[0]
    assert vectors.shape == (6, 8) and torch.linalg.matrix_rank(vectors) == 3


def test_metric_and_constraint():
    assert brevity("a b", ["x y z"]) == 1.0 and brevity("a b c d", ["x y"]) == 0.5
    assert max_lines(1, None)("a") and not max_lines(1, None)("a\nb")
