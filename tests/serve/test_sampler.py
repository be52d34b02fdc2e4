"""Which tokens are chosen, against their definitions written naively."""

from __future__ import annotations

import math

import pytest
import torch

from softprompt.serve.request import Sampling
from softprompt.serve.sampler import Chooser, choose, likelihoods


def drawn(logits, count=4000, **options) -> torch.Tensor:
    """How often each token comes."""
    chooser = Chooser(Sampling(**{"temperature": 1.0, "seed": 1, **options}), ())
    tokens = torch.tensor([chooser.choose(logits) for _ in range(count)])
    return torch.bincount(tokens, minlength=len(logits)) / count


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.tensor([2.0, -1.0, 1.0, 0.5, -3.0, 1.9])


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.7}, {"top_k": 4, "top_p": 0.6, "temperature": 2.0}],
    ids=str,
)
def test_tokens_come_as_often_as_they_should(logits, options):
    p = (logits / options.get("temperature", 1.0)).softmax(-1)
    order = p.argsort(descending=True).tolist()[: options.get("top_k", 6)]
    total, kept, mass = sum(p[i].item() for i in order), [], 0.0
    for i in order:
        if mass >= options.get("top_p", 1.0) * total:
            break
        kept.append(i)
        mass += p[i].item()
    expected = torch.zeros(6)
    expected[kept] = p[kept] / mass
    found = drawn(logits, **options)
    assert set(found.nonzero()[:, 0].tolist()) <= set(kept)
    assert (found - expected).abs().max() < 4 * math.sqrt(0.25 / 4000)


@pytest.mark.parametrize("least", [5e-324, 1e-300, 1e-45, 1e-39])
def test_the_smallest_numbers_there_are(logits, least):
    """They keep the likeliest token, and no score becomes infinite on the way or no number at all."""
    for options in ({"top_p": least}, {"temperature": least}, {"temperature": least, "top_k": 3}):
        assert drawn(logits, 50, **options)[0] == 1
    held = Chooser(Sampling(temperature=1.0, seed=1, min_tokens=5), (0,))
    assert held.choose(logits) != 0  # an end token's score is infinite, and meant so
    for temperature in (0.0, 1.0, least):
        how = Sampling(temperature=temperature, seed=1, repetition_penalty=least)
        chosen = {Chooser(how, (), read=(0, 1, 2)).choose(logits) for _ in range(20)}
        assert chosen <= {0, 2}  # both are raised as far as a score goes


def test_more_tokens_than_are_sorted_at_first():
    """The likeliest 1,024 do not make up `top_p` of a flat distribution."""
    logits = torch.linspace(0, 0.1, 3000)
    kept = drawn(logits, 3000, top_p=0.9).nonzero()[:, 0]
    ahead = logits.softmax(-1).flip(0).cumsum(0)
    assert kept.min() >= 3000 - 1 - int((ahead < 0.9).sum())
    assert len(kept) > 1100
    assert drawn(logits, 3000, top_k=2000).nonzero()[:, 0].min() >= 1000


def test_the_same_seed_draws_the_same_whatever_stands_beside_it(logits):
    beside = torch.randn(3, 6)

    def answer(rows):
        chooser, others = (
            Chooser(Sampling(temperature=1.5, seed=7), ()),
            Chooser(Sampling(temperature=1.0), ()),
        )
        return [
            choose(torch.cat([rows, logits[None]]), [others] * len(rows) + [chooser])[-1] for _ in range(30)
        ]

    assert answer(beside) == answer(beside[:0])
    assert len(set(answer(beside))) > 2
    free = [Chooser(Sampling(temperature=1.0), ()) for _ in range(2)]
    assert [free[0].choose(logits) for _ in range(40)] != [free[1].choose(logits) for _ in range(40)]


def test_greedy_is_the_likeliest_and_a_tie_falls_on_the_first():
    rows = torch.tensor([[0.0, 3.0, 1.0], [2.0, 2.0, 1.0]])
    assert choose(rows, [Chooser(Sampling(), ())] * 2) == [1, 0]


def test_penalties_count_what_was_written():
    chooser = Chooser(Sampling(frequency_penalty=0.5, presence_penalty=0.25), ())
    logits = torch.tensor([1.0, 0.6, 0.0])
    made = []
    for _ in range(6):
        made.append(chooser.choose(logits))
        chooser.note(made[-1])
    counts, expected = [0, 0, 0], []
    for _ in range(6):
        scores = [x - 0.5 * n - 0.25 * (n > 0) for x, n in zip(logits.tolist(), counts, strict=True)]
        expected.append(max(range(3), key=lambda i: scores[i]))
        counts[expected[-1]] += 1
    assert made == expected and len(set(made)) > 1


def test_bias_and_end_tokens():
    logits = torch.tensor([0.0, 5.0, 1.0])
    assert Chooser(Sampling(logit_bias={0: 9.0}), ()).choose(logits) == 0
    assert Chooser(Sampling(logit_bias={1: -100.0}), ()).choose(logits) == 2
    held = Chooser(Sampling(min_tokens=2), (1,))
    made = []
    for _ in range(4):
        made.append(held.choose(logits))
        held.note(made[-1])
    assert made == [2, 2, 1, 1]
    assert logits.tolist() == [0.0, 5.0, 1.0]  # nobody changed them


def test_rows_that_are_not_finite_have_no_token():
    rows = torch.tensor([[0.0, 1.0], [float("nan"), 1.0], [float("inf"), 1.0], [1.0, float("-inf")]])
    assert choose(rows, [Chooser(Sampling(), ())] * 4) == [1, None, None, 0]


def test_log_probabilities(logits):
    (own, top), _ = likelihoods(torch.stack([logits, logits]), [3, 0], 2)
    expected = logits.log_softmax(-1)
    assert own == pytest.approx(expected[3].item())
    assert top == ((0, pytest.approx(expected[0].item())), (5, pytest.approx(expected[5].item())))
    assert likelihoods(logits[None], [1], 0)[0][1] == ()


def test_a_log_probability_of_minus_infinity_is_openais_number():
    ((own, top),) = likelihoods(torch.tensor([[0.0, -torch.inf, 1.0]]), [1], 3)
    assert own == -9999.0 and top[-1] == (1, -9999.0) and top[0][1] < 0
