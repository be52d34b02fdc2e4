"""The loop alone: schedules, the order of rows, patience, what is kept and what is reported."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tests.fit import fit
from torch import nn

from softprompt.evaluation.records import DevScore
from softprompt.training.learner import Optimization
from softprompt.training.sampler import BatchSampler


class Point(nn.Module):
    """One trained number; nothing of a model or a prompt is needed to test the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([4.0]))
        self.fixed = nn.Parameter(torch.tensor([1.0]), requires_grad=False)


class Frozen:
    model = nn.Linear(2, 2).requires_grad_(False)


def run(keys, *, steps=10, **how):
    """A run towards x = 0 whose dev keys are given; returns outcome, method and events."""
    point, events, keys = Point(), [], iter(keys)
    outcome = fit(
        Frozen(),
        point,
        lambda rows: point.x.square().sum(),
        [1] * 6,
        lambda: DevScore((next(keys),), "score", 0.0),
        Optimization(steps, 0.1, 2, **how),
        on_event=events.append,
    )
    return outcome, point, events


# --- schedules ---


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_schedule_warms_up_then_falls(schedule):
    how = Optimization(100, 1.0, warmup=0.1, schedule=schedule)
    factors = [how.factor(step) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[10] == 1.0 and max(factors) == 1.0 and min(factors) > 0
    assert all(a >= b for a, b in itertools.pairwise(factors[10:]))
    last = {"cosine": 0.5 * (1 + math.cos(math.pi * 89 / 90)), "linear": 1 / 90, "constant": 1.0}
    assert factors[-1] == pytest.approx(last[schedule])


def test_schedule_of_very_short_runs():
    for steps in (1, 2, 3):
        factors = [Optimization(steps, 1.0).factor(step) for step in range(steps)]
        assert all(0 < f <= 1 for f in factors)


def test_learning_rates_used(monkeypatch):
    _, _, events = run(range(99), steps=10, warmup=0.2, schedule="linear")
    assert [e.lr for e in events] == pytest.approx([0.05, 0.1, *(0.1 * (1 - i / 8) for i in range(8))])
    assert [e.step for e in events] == list(range(1, 11)) and all(e.steps == 10 for e in events)


# --- order ---


@pytest.mark.parametrize(("rows", "size"), [(1, 4), (7, 3), (8, 4), (200, 5), (3, 3)])
def test_order_covers_each_row_once_an_epoch(rows, size):
    order = BatchSampler([(i * 37) % 11 for i in range(rows)], size, seed=1)
    for epoch in range(3):
        batches = [order.batch(epoch * order.per_epoch + i) for i in range(order.per_epoch)]
        assert sorted(i for batch in batches for i in batch) == list(range(rows))
        assert all(len(batch) <= size for batch in batches)


def test_order_depends_on_seed_and_epoch_alone():
    lengths = list(range(40))
    asked = BatchSampler(lengths, 4, seed=3)
    forward = [asked.batch(step) for step in range(30)]
    fresh = BatchSampler(lengths, 4, seed=3)
    assert [fresh.batch(step) for step in reversed(range(30))] == forward[::-1]
    assert forward[:10] != forward[10:20]
    assert [BatchSampler(lengths, 4, seed=4).batch(step) for step in range(10)] != forward[:10]


def test_order_puts_like_lengths_together():
    lengths = [(i * 7919) % 100 for i in range(400)]
    order = BatchSampler(lengths, 10, seed=0)
    spread = [max(lengths[i] for i in b) - min(lengths[i] for i in b) for b in map(order.batch, range(40))]
    assert sum(spread) / len(spread) < 12  # 82 were they drawn at random


# --- evaluation, patience, best ---


def test_best_is_kept():
    outcome, point, events = run([1, 5, 3, 2, 4], eval_every=2)
    assert (outcome.stopped, outcome.step, outcome.best_step) == ("finished", 10, 4)
    assert [e.is_best for e in events if e.dev] == [True, True, False, False, False]
    _, stopped_there, _ = run([1, 5, 3], eval_every=2, patience=1)  # stops at 6, and goes back to 4 too
    _, newest, _ = run([1, 2, 3, 4, 5], eval_every=2)
    assert torch.equal(point.x, stopped_there.x) and newest.x < point.x < 4
    assert [h["step"] for h in outcome.history] == [2, 4, 6, 8, 10]


def test_patience():
    outcome, _, _ = run([3, 2, 1, 0, 0], eval_every=2, patience=2)
    assert (outcome.stopped, outcome.step, outcome.best_step) == ("early", 6, 2)
    outcome, _, _ = run([3, 2, 4, 0, 0], eval_every=2, patience=2)
    assert (outcome.stopped, outcome.step, outcome.best_step) == ("finished", 10, 6)


def test_last_step_is_always_evaluated():
    outcome, _, events = run(range(9), steps=7, eval_every=3)
    assert [e.step for e in events if e.dev] == [3, 6, 7] and outcome.best_step == 7


def test_only_what_asks_for_gradient_is_trained():
    _, point, _ = run(range(9))
    assert point.fixed.item() == 1.0 and abs(point.x.item()) < 4.0


def test_clipping(monkeypatch):
    """A huge gradient is cut to norm 1; `clip=0` lets it be."""
    seen = []
    original = torch.optim.AdamW.step

    def step(self, *args):
        seen.append(max(p.grad.abs().max().item() for g in self.param_groups for p in g["params"]))
        return original(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    run(range(9), steps=2)
    run(range(9), steps=2, clip=0.0)
    assert seen[0] == pytest.approx(1.0) and seen[2] == pytest.approx(8.0)


def test_stop_at_once_trains_nothing():
    point = Point()
    how = Optimization(5, 0.1, 2)
    score = DevScore((0.0,), "s", 0.0)
    outcome = fit(Frozen(), point, lambda r: point.x.sum(), [1], lambda: score, how, should_stop=lambda: True)
    assert (outcome.stopped, outcome.step, point.x.item()) == ("interrupted", 0, 4.0)
