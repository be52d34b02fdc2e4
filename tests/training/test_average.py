"""The average of the parameters: its formula, where it is scored, and that training does not notice it."""

from __future__ import annotations

import pytest
import torch
from tests.fit import fit
from torch import nn

from softprompt.config.identity import settings_differ
from softprompt.config.load import recipe_from_dict
from softprompt.errors import SoftPromptError
from softprompt.evaluation.records import DevScore
from softprompt.training import decisive
from softprompt.training.learner import Optimization


class Point(nn.Module):
    """One trained number."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([4.0]))


class Frozen:
    model = nn.Linear(2, 2).requires_grad_(False)


def run(average: float, steps: int = 8):
    """Train towards 0; return the value of each step, the scored values and the value at the end."""
    point, values, scored = Point(), [], []

    def dev_score():
        scored.append(point.x.item())
        return DevScore((float(len(scored)),), "score", 0.0)  # the last is the best

    fit(
        Frozen(),
        point,
        lambda rows: point.x.square().sum(),
        [1] * 6,
        dev_score,
        Optimization(steps, 0.1, 2, eval_every=2, average=average),
        on_event=lambda event: values.append(point.x.item()),
    )
    return values, scored, point.x.item()


def test_the_average_is_scored_and_kept_and_the_steps_are_the_same():
    plain, plain_scored, last = run(0.0)
    values, scored, kept = run(0.375)  # a memory of three steps
    assert values == plain and last == plain[-1] == plain_scored[-1]
    average, expected = 0.0, []
    for step, value in enumerate(values, 1):
        average += (value - average) / min(step, 3)
        expected.append(average)
    assert scored == pytest.approx(expected[1::2]) and kept == pytest.approx(expected[-1])


def test_a_memory_of_all_steps_is_their_mean_and_one_of_one_step_the_last():
    values, _, kept = run(1.0)
    assert kept == pytest.approx(sum(values) / len(values))
    values, _, kept = run(0.01)
    assert kept == values[-1]


def recipe(**train):
    return recipe_from_dict({"data": {"train": "rows.jsonl"}, "train": train})


def test_a_run_with_an_average_is_another_run():
    plain, averaged = (decisive.settings(recipe(**train)) for train in ({}, {"average": 0.1}))
    (change,) = settings_differ({"format": 2, "settings": plain}, averaged)
    assert "train.average" in change
    assert "average" not in recipe().to_dict()["train"]


@pytest.mark.parametrize("value", [-0.1, 1.5, "much"])
def test_a_share_is_from_0_to_1(value):
    with pytest.raises(SoftPromptError) as caught:
        recipe(average=value)
    assert "train.average" in str(caught.value)
