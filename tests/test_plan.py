"""The plan: decided by what is injected and not by a method's name; never more memory than the budget."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
import torch

from softprompt import plan
from softprompt.data.collate import collate
from softprompt.injection import Injection, Prefix, SoftTokens
from softprompt.lm import adapt
from softprompt.plan import build_cache, decide

LENGTHS = (5, 1, 9, 3, 9, 2)


@pytest.fixture(scope="module")
def examples():
    rows = []
    for index, length in enumerate(LENGTHS):
        ids = tuple(range(10 + index, 10 + index + length))
        rendered = SimpleNamespace(input="")
        encoded = {"input_ids": ids, "target_ids": (1, 2), "places": (), "value": None}
        rows.append(SimpleNamespace(**encoded, prompt=0, rendered=rendered))
    return rows


def parts(lm):
    soft = SoftTokens(torch.zeros(1, 4, 32), torch.ones(1, 4, dtype=torch.bool))
    kv = Prefix(lm.kv_of([1, 2, 3]), torch.ones(1, 3, dtype=torch.bool))
    return {"before": soft, "after": soft, "kv_before": kv, "kv_after": kv, "adapter": kv}


@pytest.mark.parametrize(
    ("channels", "mode"),
    [
        ([], "cached-ram"),
        (["after"], "cached-ram"),
        (["kv_after"], "cached-ram"),
        (["after", "kv_after"], "cached-ram"),
        (["before"], "full"),
        (["kv_before"], "full"),
        (["adapter"], "full"),
        (["after", "kv_before"], "full"),
    ],
)
def test_mode_follows_the_injection(llama, examples, channels, mode):
    found = parts(llama)
    injection = Injection(**{name: found[name] for name in channels})
    chosen = decide(llama, injection, examples, 2, budget_bytes=10**9)
    assert chosen.mode == mode
    if mode == "full":
        assert all((name in chosen.reason) == (name != "after") for name in channels)
    assert f"plan: {mode}" in str(chosen) and chosen.reason in str(chosen)


def test_no_method_is_named():
    source = inspect.getsource(plan)
    from softprompt.methods import METHODS

    assert not [name for name in METHODS if name != "none" and name in source]


def test_numbers(llama, examples):
    inputs = sum(LENGTHS) - len(LENGTHS)  # the last token of each belongs to the tail
    soft = Injection(after=parts(llama)["after"])
    chosen = decide(llama, soft, examples, 2, budget_bytes=10**9)
    assert chosen.prefill_tokens == inputs
    assert chosen.cache_bytes == inputs * llama.spec.kv_numbers_per_token * 4  # float32
    assert chosen.step_tokens == 2 * (2 + 4)  # per row two targets and four soft tokens
    whole = decide(llama, Injection(before=parts(llama)["before"]), examples, 2, budget_bytes=10**9)
    assert whole.step_tokens == round(2 * (inputs / 6 + 2 + 4)) and whole.prefill_tokens == 0


def test_budget_and_switches(llama, examples):
    injection = Injection(after=parts(llama)["after"])
    needed = decide(llama, injection, examples, 2).cache_bytes
    assert decide(llama, injection, examples, 2, budget_bytes=needed).mode == "cached-ram"
    short = decide(llama, injection, examples, 2, budget_bytes=needed - 1)
    assert short.mode == "recompute" and "more than the budget" in short.reason
    assert decide(llama, injection, examples, 2, cache="off").mode == "recompute"
    assert plan.default_budget() > 0


def test_a_trained_base_makes_nothing_constant(new_lm, examples):
    lm = new_lm("llama")
    adapt.unfreeze(lm, "full")
    chosen = decide(lm, Injection(after=parts(lm)["after"]), examples, 2, budget_bytes=10**9)
    assert chosen.mode == "full" and "trained too" in chosen.reason


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
@pytest.mark.parametrize("batch_tokens", [1, 12, 10**6])
def test_cache_holds_what_prefill_computes(lms, family, examples, batch_tokens, close):
    lm = lms(family)
    done = []
    cache = build_cache(lm, examples, batch_tokens=batch_tokens, progress=lambda n, of: done.append((n, of)))
    assert len(cache) == 6 and done[-1] == (6, 6)
    inputs = sum(LENGTHS) - len(LENGTHS)
    assert cache.bytes == inputs * lm.spec.kv_numbers_per_token * 4
    for rows in ([0, 1, 2, 3, 4, 5], [4, 1], [1], [2, 2]):
        context = cache.context(rows, lm)
        fresh = lm.prefill(collate([examples[i] for i in rows], targets=False))
        assert torch.equal(context.mask, fresh.mask)
        for kept, layer in zip(context.layers, fresh.layers, strict=True):
            seen = context.mask[:, None, :, None]
            close(kept.key * seen, layer.key * seen)
            close(kept.value * seen, layer.value * seen)


def test_cache_of_layers_of_unlike_sizes(llama, examples, monkeypatch):
    """Layers that cannot be stacked into one tensor are kept one by one."""
    original = llama.prefill

    def wider(batch, injection=None):
        context = original(batch, injection)
        last = context.layers[-1]
        twice = plan.LayerKV(torch.cat([last.key] * 2, dim=1), torch.cat([last.value] * 2, dim=1))
        return plan.Context((*context.layers[:-1], twice), context.mask)

    monkeypatch.setattr(llama, "prefill", wider)
    context = build_cache(llama, examples).context([2, 0], llama)
    assert [layer.key.shape[1] for layer in context.layers] == [2, 2, 4]
    assert torch.equal(context.layers[2].key[:, :2], context.layers[2].key[:, 2:])
