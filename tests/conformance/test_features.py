"""What a generated prompt reads is computed once: the same loss and gradients, and nothing is read again."""

from __future__ import annotations

import pytest
import torch

from softprompt.cache import open, planning
from softprompt.cache.folders import CacheFolder
from softprompt.lm import features
from softprompt.lm.apply import injection_for
from softprompt.training.losses import next_token

from .conftest import CASES
from .test_equivalence import examples_of, gradients

READING = [case for case in CASES if case.options.get("source") in ("hidden", "encoder")]


@pytest.fixture(params=["llama", "gpt2", "qwen3", "t5", "bert"])
def lm(request, lms, encoders):
    return encoders("bert") if request.param == "bert" else lms(request.param)


@pytest.fixture(params=READING, ids=lambda case: case.id)
def method(request, lm, build):
    return build(lm, request.param)


@pytest.fixture
def batch(lm, rows_to_batch):
    from dataclasses import replace

    rows = rows_to_batch(
        [[5, 17, 80, 33, 9], [42, 3], [60, 61, 7, 12, 90, 33], [42, 3]], [[1]] * 4, [0, 1, 1, 0]
    )
    return replace(rows, places=torch.tensor([[1], [1], [2], [1]])) if lm.answers == "mask" else rows


def refuse(*arguments, **named):
    raise AssertionError("read again")


@pytest.mark.parametrize("where", ["ram", "disk"])
def test_kept_features_train_alike(lm, method, batch, close, monkeypatch, tmp_path, where):
    examples, place = examples_of(batch), CacheFolder(tmp_path / "kv", limit=10**9)
    injection = injection_for(lm, method, batch)
    chosen = planning.decide(
        lm, injection, examples, 4, reads=method.reads, cache=where, budget_bytes=10**9, place=place
    )
    assert chosen.features is not None and chosen.features.where == where
    assert str(chosen.features) in str(chosen)
    options = {"reads": method.reads, "place": place}
    (cache,), chosen = open.open_inputs(chosen, lm, [examples], **options)
    context = lm.prefill(batch) if chosen.is_cached else None
    loss, fresh = gradients(lm, method, batch, context)
    cache.fill(batch, [0, 1, 2, 3], method.reads)  # in memory a row is computed when it is first asked for
    monkeypatch.setattr(type(lm), "hidden", refuse)
    monkeypatch.setattr(features, "pretrained", refuse)
    filled = cache.fill(batch, [0, 1, 2, 3], method.reads)
    again, kept = gradients(lm, method, filled, cache.context([0, 1, 2, 3]))
    close(again, loss)
    assert max(gradient.abs().max() for gradient in fresh.values()) > 1e-4
    for name, gradient in fresh.items():
        close(kept[name], gradient)
    with pytest.raises(AssertionError, match="read again"):
        next_token(lm, method, batch, context)


def test_what_another_prompt_reads_is_left_alone(lm, method, batch):
    """A batch brings along what the cache's own reader reads, and nothing for others."""
    from dataclasses import replace

    examples = examples_of(batch)
    chosen = planning.decide(
        lm, injection_for(lm, method, batch), examples, 4, reads=method.reads, budget_bytes=10**9
    )
    (cache,), _ = open.open_inputs(chosen, lm, [examples], reads=method.reads)
    assert cache.fill(batch, [0, 1, 2, 3], None).features is None
    assert (
        cache.fill(batch, [0, 1, 2, 3], replace(method.reads, layer=method.reads.layer + 1)).features is None
    )
