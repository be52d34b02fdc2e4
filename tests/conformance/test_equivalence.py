"""Contracts 3 and 4: cached = full, decoded step by step = recomputed, checkpointed = not; live = saved."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.utils.checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from softprompt.artifacts import artifact
from softprompt.cache import Cache, KeyValues, disk_store, memory_store, planning
from softprompt.cache import kv as rows
from softprompt.cache.folders import CacheFolder
from softprompt.data.example import Example
from softprompt.lm.apply import injection_for
from softprompt.methods.materialised import Materialised, materialise
from softprompt.testing import checks
from softprompt.training.losses import next_token

NEW = 5


def gradients(lm, method, batch, context=None):
    """Loss and its gradients, by parameter."""
    method.zero_grad(set_to_none=True)
    loss = next_token(lm, method, batch, context)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in method.named_parameters()}


def examples_of(batch):
    """What a cache reads of encoded rows."""
    rows = []
    for i in range(batch.size):
        ids = batch.input_ids[i][batch.input_mask[i]].tolist()
        target = batch.target_ids[i][batch.target_mask[i]].tolist()
        rendered = SimpleNamespace(input=batch.texts[i])
        prompt = int(batch.prompt_ids[i])
        rows.append(Example(tuple(ids), tuple(target), prompt, rendered, None))
    return rows


def test_prefill_and_tail_equal_full(family, subject):
    checks.cached_input(subject)


def test_plain_prefill_and_tail_equal_full(lm, family, batch, close):
    if "cache" in lm.spec.limits:
        assert lm.context(batch) is None
        return
    cached = lm.logits(batch, None, lm.prefill(batch))
    close(cached[batch.target_mask], lm.logits(batch)[batch.target_mask])


def test_plan_cache_equals_full_in_loss_and_gradient(
    lm, family, case, method, batch, close, tmp_path, monkeypatch
):
    """Whatever `decide` keeps, the loss and every gradient are those of the whole computation."""
    examples = examples_of(batch)
    chosen = planning.decide(lm, injection_for(lm, method, batch), examples, 4, budget_bytes=10**9)
    loss, full = gradients(lm, method, batch)
    if "cache" in lm.spec.limits:
        assert chosen.mode == "full" and lm.spec.limits["cache"] in chosen.reason
        return
    if chosen.mode == "full":
        with torch.no_grad():  # the plan is right to keep nothing: a plain context would be another model
            plain, own = lm.prefill(batch), lm.prefill(batch, injection_for(lm, method, batch))
            wrong = next_token(lm, method, batch, plain)
        # but where the layers that are changed make no keys: they read those of earlier ones
        changed = plain.mask.shape != own.mask.shape or any(
            not a.key.equal(b.key) for a, b in zip(plain.layers, own.layers, strict=True)
        )
        assert (abs(wrong - loss) > 1e-4) == changed
        return
    assert chosen.mode == "cached-ram"
    kv = KeyValues(lm)
    cache = Cache(kv, memory_store.build(kv, examples, batch_tokens=12), examples)  # several chunks
    on_disk = Cache(kv, disk_store.open_or_build(CacheFolder(tmp_path), kv, examples), examples)
    contexts = [cache.batch(range(4)), on_disk.batch(range(4)), lm.prefill(batch)]
    monkeypatch.setattr(rows, "RAGGED_TOKENS", 0)  # as long inputs are read
    contexts.append(cache.batch(range(4)))
    for context in contexts:
        again, cached = gradients(lm, method, batch, context)
        close(again, loss)
        for name, gradient in full.items():
            close(cached[name], gradient)


def test_incremental_decoding_equals_recompute(lm, family, subject, batch, method, generates):
    if generates(injection_for(lm, method, batch)):
        checks.generate_equals_forward(subject)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3", "mistral", "gemma3_text", "opt", "deepseek_v3"])
@pytest.mark.parametrize("placement", ["before", "after"])
def test_other_ways_of_decoding(lm, family, placement, all_cases, build, batch, row):
    """The input in chunks, and several guessed tokens at a time: columns are counted from the cache's end."""
    case = next(c for c in all_cases if c.id == f"prefix-tuning-{placement}")
    method = build(lm, case)
    injection = injection_for(lm, method, batch)
    how = {"max_new_tokens": 8, "do_sample": False}
    made = lm.generate(batch, injection, **how)
    assert torch.equal(made, lm.generate(batch, injection, prefill_chunk_size=3, **how))
    for i in range(batch.size):
        single = injection.select(torch.tensor([i]))
        guessed = lm.generate(row(batch, i), single, prompt_lookup_num_tokens=3, **how)
        assert guessed[0].tolist() == made[i].tolist()


def has_checkpointing(lm) -> bool:
    return any(isinstance(m, GradientCheckpointingLayer) for m in lm.model.modules())


@pytest.fixture
def checkpointed(lm, monkeypatch):
    """Turns gradient checkpointing on, counts the layers that went through it, and off again."""
    calls = []
    original = torch.utils.checkpoint.checkpoint

    def counting(function, *args, **kwargs):
        calls.append(function)
        return original(function, *args, **kwargs)

    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", counting)
    yield lambda: lm.set_gradient_checkpointing(True) or calls
    lm.set_gradient_checkpointing(False)


def test_gradient_checkpointing_equals_none(lm, family, case, method, batch, checkpointed, close, refused):
    if not has_checkpointing(lm):
        refused(lambda: lm.set_gradient_checkpointing(True), "gradient checkpointing")
        return
    loss, plain = gradients(lm, method, batch)
    calls = checkpointed()
    again, saved = gradients(lm, method, batch)
    made = len(calls)
    assert made >= lm.spec.depth
    close(again, loss)
    for name, gradient in plain.items():
        close(saved[name], gradient)
    lm.set_gradient_checkpointing(False)
    gradients(lm, method, batch)
    assert len(calls) == made  # off is off


def test_gradient_checkpointing_with_a_context(lm, family, case, method, batch, checkpointed, close):
    """A context is computed, and used, while checkpointing is on; and generation is not disturbed by it."""
    if "cache" in lm.spec.limits or not has_checkpointing(lm):
        return
    injection = injection_for(lm, method, batch)
    cacheable = not {"before", "kv_before", "adapter"} & set(injection.channels())
    loss, plain = gradients(lm, method, batch, lm.prefill(batch)) if cacheable else (None, {})
    full = lm.logits(batch, injection)
    tokens = lm.generate(batch, injection, max_new_tokens=NEW, do_sample=False)
    calls = checkpointed()
    cached = lm.logits(batch, injection, lm.prefill(batch, injection))
    close(cached[batch.target_mask], full[batch.target_mask])
    assert torch.equal(lm.generate(batch, injection, max_new_tokens=NEW, do_sample=False), tokens)
    if loss is not None:
        calls.clear()
        again, saved = gradients(lm, method, batch, lm.prefill(batch))
        assert len(calls) == lm.spec.depth
        close(again, loss)
        for name, gradient in plain.items():
            close(saved[name], gradient)


def test_live_equals_materialised_and_reloaded(
    lm, family, case, method, batch, manifest_for, tmp_path, close, plain_differs
):
    with torch.no_grad():
        live = lm.logits(batch, injection_for(lm, method, batch))
    plain_differs(lm, batch, live)
    forms = []
    static = materialise(method)
    assert (static is None) == (method.reads is not None)
    if static is not None:
        forms.append(static)
    artifact.save(tmp_path, method, lm, manifest_for(lm, case))
    found = artifact.load(tmp_path)
    served, trainable = found.method(lm), found.method(lm, trainable=True)
    assert isinstance(served, Materialised) == (static is not None)
    for name, tensor in method.state_dict().items():
        assert torch.equal(trainable.state_dict()[name], tensor)
    assert trainable.num_prompts == served.num_prompts == method.num_prompts == 2
    assert any(p.requires_grad for p in trainable.parameters())
    for form in [*forms, served, trainable]:
        with torch.no_grad():
            # the same numbers laid out otherwise in memory are summed in another order
            close(lm.logits(batch, injection_for(lm, form, batch)), live, 5e-6)
