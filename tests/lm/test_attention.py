"""The attention wrapper: threads do not see each other's injection, and nothing stays behind."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch

from softprompt.injection import Injection, LayerKV, Prefix, SoftTokens
from softprompt.lm import causal
from softprompt.lm.injected import current


def prefix_of(lm, ids) -> Injection:
    return Injection(kv_before=Prefix(lm.kv_of(ids), torch.ones(1, len(ids), dtype=torch.bool)))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_two_threads_with_different_injections(lms, family, rows_to_batch):
    """Both run inside the model at the same time (a barrier holds them there), each with its own prefix."""
    lm = lms(family)
    batch = rows_to_batch([[5, 6, 7], [9]], [[1], [2]])
    injections = [prefix_of(lm, [3, 4]), prefix_of(lm, [50, 60, 70]), None]
    expected = [lm.logits(batch, injection) for injection in injections]
    barrier = threading.Barrier(len(injections), timeout=30)
    results: list = [None] * len(injections)

    def meet(*_):
        if threading.current_thread().name.startswith("meeting"):
            barrier.wait()

    handles = [layer.register_forward_pre_hook(meet) for layer in layers_of(lm)]

    def work(index):
        results[index] = [lm.logits(batch, injections[index]) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(i,), name=f"meeting {i}") for i in range(len(injections))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        for handle in handles:
            handle.remove()
    for made, right in zip(results, expected, strict=True):
        assert made is not None and all(torch.equal(one, right) for one in made)


def layers_of(lm):
    return lm.model.model.layers if hasattr(lm.model, "model") else lm.model.transformer.h


def test_nothing_stays_after_an_error(llama, rows_to_batch):
    batch = rows_to_batch([[5, 6, 7]], [[1]])
    plain = llama.logits(batch)

    def fail(*_):
        raise KeyboardInterrupt

    handle = llama.model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        llama.logits(batch, prefix_of(llama, [3, 4]))
    handle.remove()
    assert current() is None
    assert torch.equal(llama.logits(batch), plain)


def test_backward_on_another_thread(llama, rows_to_batch, close):
    """Checkpointed layers are computed again in the backward pass, wherever that runs."""
    batch = rows_to_batch([[5, 6, 7]], [[1]])
    prefix = llama.kv_of([3, 4])
    values = prefix[0].value.clone().requires_grad_(True)
    layers = (LayerKV(prefix[0].key, values), *prefix[1:])
    injection = Injection(kv_before=Prefix(layers, torch.ones(1, 2, dtype=torch.bool)))
    llama.logits(batch, injection).square().mean().backward()
    expected, values.grad = values.grad, None
    llama.set_gradient_checkpointing(True)
    try:
        loss = llama.logits(batch, injection).square().mean()
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join(30)
    finally:
        llama.set_gradient_checkpointing(False)
    assert values.grad is not None
    close(values.grad, expected)


def test_same_numbers_with_and_without_gradient(lms, rows_to_batch, close):
    for family in ("llama", "gpt2", "qwen3"):
        lm = lms(family)
        batch = rows_to_batch([[5, 6, 7], [9]], [[1, 4], [2]])
        layers = tuple(layer.map(lambda t: t.clone().requires_grad_(True)) for layer in lm.kv_of([3, 4, 8]))
        prefix = Prefix(layers, torch.ones(1, 3, dtype=torch.bool))
        for injection in (Injection(kv_before=prefix), Injection(kv_after=prefix)):
            trained = lm.logits(batch, injection)
            with torch.no_grad():
                close(trained[batch.target_mask], lm.logits(batch, injection)[batch.target_mask])


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_model_that_is_cast_projects_in_its_new_precision(new_lm, family):
    """What a layer is given beside its input is kept for later calls, and must not outlive a cast."""
    lm = new_lm(family)
    hidden = torch.ones(1, 2, lm.spec.hidden_size)
    whole = lm.project_kv(0, hidden)
    lm.model.to(torch.bfloat16)
    half = lm.project_kv(0, hidden)
    assert half.key.dtype == half.value.dtype == torch.bfloat16
    assert (half.value.float() - whole.value).abs().max() < 0.05 * whole.value.abs().max()


def test_generation_multiplies_the_vocabulary_once(llama, rows_to_batch, monkeypatch):
    """Sliced hidden states are strided, and torch then copies the vocabulary's matrix for every row."""
    contiguous = []
    handle = llama.model.lm_head.register_forward_pre_hook(
        lambda _, args: contiguous.append(args[0].is_contiguous())
    )
    try:
        llama.generate(rows_to_batch([[5, 6, 7], [9, 4]]), max_new_tokens=3, do_sample=False)
    finally:
        handle.remove()
    assert contiguous and all(contiguous)


@pytest.mark.parametrize(
    "channels", ["", "before", "kv_before", "kv_before and kv_after", "before and after"]
)
@pytest.mark.parametrize("cached", [False, True])
def test_what_all_rows_begin_with_runs_once(llama, rows_to_batch, close, channels, cached, monkeypatch):
    """The tokens that no row goes without, whatever precedes them."""
    generator = torch.Generator().manual_seed(3)
    text = [5, 6, 7, 8, 9, 10]
    batch = rows_to_batch([[*text, 1, 2], [*text, 20], [*text, 1, 30, 4, 5]], [[1, 2], [3, 4], [5, 6]])
    vectors = torch.randn(1, 4, llama.spec.hidden_size, generator=generator).requires_grad_()
    prefix = Prefix(
        tuple(layer.map(lambda t: t.requires_grad_()) for layer in llama.kv_of([40, 41])),
        torch.ones(1, 2, dtype=torch.bool),
    )
    parts = {name: prefix for name in ("kv_before", "kv_after") if name in channels}
    if channels.startswith("before"):
        parts["before"] = SoftTokens(vectors, torch.ones(1, 4, dtype=torch.bool))
    if channels.endswith(" after"):
        parts["after"] = SoftTokens(vectors[:, :2], torch.ones(1, 2, dtype=torch.bool))
    whole, trained = Injection(**parts), (vectors, prefix.layers[0].key, prefix.layers[1].value)
    widths, forward = [], type(llama.model.model).forward

    def counted(self, *args, **named):
        widths.append(tuple(named["inputs_embeds"].shape[:2]))
        return forward(self, *args, **named)

    monkeypatch.setattr(type(llama.model.model), "forward", counted)
    found = []
    for least in (1, 10**6):
        monkeypatch.setattr(causal, "WORTH_A_PASS", least)
        context = llama.context(batch, whole) if cached else None
        logits = llama.logits(batch, whole, context)
        wanted: tuple = ()
        if logits.requires_grad:
            wanted = torch.autograd.grad(logits.square().sum(), trained, allow_unused=True)
        found.append((logits.detach(), *(g for g in wanted if g is not None)))
    trains = "kv" in channels or ("before" in channels and not cached) or channels.endswith(" after")
    assert len(found[0]) == len(found[1]) and (len(found[0]) > 1) == trains
    for one, other in zip(*found, strict=True):
        close(one, other)
    assert widths[0] == (1, 6 + 4 * ("before" in parts))
    assert widths[1][1] == widths[-2 if cached else -1][1] - widths[0][1]


@pytest.mark.parametrize("channels", ["before", "before and kv_before", "before and after"])
def test_soft_tokens_that_serve_all_rows_run_once(llama, rows_to_batch, close, channels, monkeypatch):
    """One row of them gives what a copy for each row gives, in logits and gradient, in fewer positions."""
    generator = torch.Generator().manual_seed(3)
    batch = rows_to_batch([[5, 6, 7, 8, 9], [20], [31, 32, 33]], [[1, 2], [3, 4], [5, 6]])
    vectors = torch.randn(1, 4, llama.spec.hidden_size, generator=generator).requires_grad_()
    mask = torch.ones(1, 4, dtype=torch.bool)
    whole = Injection(before=SoftTokens(vectors, mask))
    if "after" in channels:
        whole = replace(whole, after=SoftTokens(vectors[:, :2], mask[:, :2]))
    if "kv_before" in channels:
        whole = replace(whole, kv_before=Prefix(llama.kv_of([40, 41]), torch.ones(1, 2, dtype=torch.bool)))
    monkeypatch.setattr(causal, "WORTH_A_PASS", 1)
    widths, forward = [], type(llama.model.model).forward

    def counted(self, *args, **named):
        widths.append(named["inputs_embeds"].shape[:2])
        return forward(self, *args, **named)

    monkeypatch.setattr(type(llama.model.model), "forward", counted)
    found = []
    for injection in (whole, whole.map_rows(lambda t: t.expand(3, *t.shape[1:]))):
        logits = llama.logits(batch, injection)
        found.append((logits, *torch.autograd.grad(logits.square().sum(), vectors)))
    for one, other in zip(*found, strict=True):
        close(one, other)
    assert widths[0] == (1, 4) and widths[1][1] == widths[2][1] - 4
