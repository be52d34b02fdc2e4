"""Losses and label scores against their definitions, written out row by row."""

from __future__ import annotations

import math

import pytest
import torch

from softprompt import methods
from softprompt.evaluation.likelihood import target_nll
from softprompt.evaluation.row_answers import score_candidates
from softprompt.lm.apply import injection_for
from softprompt.methods.materialised import materialise
from softprompt.training.losses import next_token

INPUTS, TARGETS = [[5, 6, 7, 8], [9], [30, 31]], [[11, 12], [90], [4, 70, 70]]


@pytest.fixture
def batch(rows_to_batch):
    return rows_to_batch(INPUTS, TARGETS, [0, 1, 1])


@pytest.fixture
def method(llama, setting, perturb):
    return perturb(methods.build("prefix-tuning", setting(llama), {"length": 3}))


def log_probability(lm, method, prompt, ids, target, rows_to_batch) -> list[float]:
    """Of each target token, one model call for each."""
    found = []
    for i, token in enumerate(target):
        single = rows_to_batch([ids], [[*target[:i], token]], [prompt])
        logits = lm.logits(single, injection_for(lm, method, single))[0, -1].double()
        found.append((logits[token] - logits.logsumexp(0)).item())
    return found


def test_loss_is_the_mean_over_target_tokens(llama, method, batch, rows_to_batch):
    by_row = [
        log_probability(llama, method, prompt, ids, target, rows_to_batch)
        for ids, target, prompt in zip(INPUTS, TARGETS, [0, 1, 1], strict=True)
    ]
    tokens = [value for row in by_row for value in row]
    assert next_token(llama, method, batch).item() == pytest.approx(-sum(tokens) / 6, rel=1e-5)
    nll = target_nll(llama.logits(batch, injection_for(llama, method, batch)), batch)
    assert nll.tolist() == pytest.approx([-sum(row) for row in by_row], rel=1e-5)


def test_loss_of_an_unsure_model_is_the_entropy(new_lm, setting, batch):
    lm = new_lm("llama")
    with torch.no_grad():
        lm.model.lm_head.weight.zero_()
    plain = methods.build("none", setting(lm))
    assert next_token(lm, plain, batch).item() == pytest.approx(math.log(101))


@pytest.mark.parametrize("batch_tokens", [1, 15, 2048])
@pytest.mark.parametrize(
    "candidates",
    [[[20], [21], [22]], [[20, 21], [22], [23, 24, 25]], [[20], [20, 21]]],
    ids=["one token", "several", "one begins another"],
)
def test_candidate_scores(llama, method, rows_to_batch, candidates, batch_tokens):
    """The exact log-probability of each label, all its tokens counted, whatever shares its batch."""
    batch = rows_to_batch(INPUTS, None, [0, 1, 1])
    injection = injection_for(llama, method, batch)
    context = llama.prefill(batch, injection)
    scores = score_candidates(llama, batch, injection, context, [candidates] * 3, batch_tokens=batch_tokens)
    for row, ids, prompt in zip(scores, INPUTS, [0, 1, 1], strict=True):
        expected = [
            sum(log_probability(llama, method, prompt, ids, target, rows_to_batch)) for target in candidates
        ]
        assert row == pytest.approx(expected, rel=1e-4)


def test_candidates_that_differ_by_row(llama, method, rows_to_batch):
    """Multiple choice: each row has its own, and their number differs; one injection row may serve all."""
    batch = rows_to_batch(INPUTS, None, [1, 1, 1])
    static = materialise(method)
    assert static is not None
    injection = static(batch.prompt_ids)
    context = llama.prefill(batch, injection)
    candidates = [[[20], [21, 3]], [[7, 8, 9]], [[1], [2, 2], [3]]]
    scores = score_candidates(llama, batch, injection, context, candidates)
    assert [len(row) for row in scores] == [2, 1, 3]
    for row, ids, own in zip(scores, INPUTS, candidates, strict=True):
        expected = [sum(log_probability(llama, method, 1, ids, t, rows_to_batch)) for t in own]
        assert row == pytest.approx(expected, rel=1e-4)


def test_select(llama, batch):
    rows = torch.tensor([2, 0, 0])
    chosen = batch.select(rows)
    assert chosen.prompt_ids.tolist() == [1, 0, 0] and chosen.texts == tuple(
        batch.texts[i] for i in (2, 0, 0)
    )
    assert torch.equal(chosen.target_ids, batch.target_ids[rows])
    context = llama.prefill(batch)
    assert torch.equal(context.select(rows).layers[1].key, context.layers[1].key[rows])
