"""A model on which injection has no effect is refused, with the reason; the spec is measured."""

from __future__ import annotations

import pytest
import torch

from softprompt.errors import SoftPromptError
from softprompt.lm import attention
from softprompt.lm.frozen import FrozenLM
from softprompt.lm.spec import LayerSpec


def test_spec_is_measured(lms):
    assert lms("llama").spec.layers == (LayerSpec(heads=4, kv_heads=2, head_dim=8, v_head_dim=8),) * 3
    assert lms("qwen3").spec.layers == (LayerSpec(heads=4, kv_heads=2, head_dim=16, v_head_dim=16),) * 3
    assert lms("gpt2").spec.layers == (LayerSpec(heads=4, kv_heads=4, head_dim=8, v_head_dim=8),) * 3
    spec = lms("llama").spec
    assert (spec.family, spec.hidden_size, spec.vocab_size, spec.context) == ("llama", 32, 101, 256)
    assert spec.kv_numbers_per_token == 3 * 2 * (8 + 8)


def replaced(monkeypatch, function):
    """transformers calls `function` as our attention from now on."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, attention.SDPA, function)


def test_attention_that_is_never_called(monkeypatch, new_lm):
    """As in a family that computes attention by itself."""
    replaced(monkeypatch, attention.sdpa_attention_forward)
    with pytest.raises(SoftPromptError) as caught:
        new_lm("llama")
    assert "'llama' cannot take a prefix" in caught.value.what and "interface" in caught.value.why


def test_attention_that_ignores_what_is_injected(monkeypatch, new_lm):
    def ignores(module, query, key, value, attention_mask, **kwargs):
        active = attention._ACTIVE.get()
        if active is not None:
            active.calls[module.layer_idx] = query.shape[1]
        return attention.sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

    replaced(monkeypatch, ignores)
    with pytest.raises(SoftPromptError, match=r"no effect on layers \[0, 1, 2\]"):
        new_lm("llama")


def test_one_deaf_layer_is_found(monkeypatch, new_lm):
    def deaf_in_the_middle(module, *args, **kwargs):
        if module.layer_idx != 1:
            return attention.attend_sdpa(module, *args, **kwargs)
        attention._ACTIVE.get().calls[1] = 4
        return attention.sdpa_attention_forward(module, *args, **kwargs)

    replaced(monkeypatch, deaf_in_the_middle)
    with pytest.raises(SoftPromptError, match=r"no effect on layers \[1\]"):
        new_lm("llama")


def test_model_is_frozen_and_quiet(new_lm):
    lm = new_lm("gpt2")
    assert lm.is_frozen and not any(module.training for module in lm.model.modules())


def test_the_wrapper_alone_changes_nothing(lms, close):
    """Without an injection the model is transformers' own, to the last bit that the mask's shape allows."""
    import copy

    for family in ("llama", "gpt2", "qwen3"):
        lm = lms(family)
        plain = copy.deepcopy(lm.model)
        plain.set_attn_implementation("sdpa")
        ids, mask = torch.tensor([[0, 0, 5, 9], [4, 3, 2, 1]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
        with torch.no_grad():
            close(lm.model(ids, attention_mask=mask).logits, plain(ids, attention_mask=mask).logits, 1e-6)


def test_eager_models_take_prefixes_too(new_lm, lms, rows_to_batch, close):
    """A model without sdpa support is wrapped around its own eager attention: the same numbers."""
    lm = new_lm("llama")
    type(lm.model)._supports_sdpa, before = False, type(lm.model)._supports_sdpa
    try:
        eager = FrozenLM(lm.model, lm.tokenizer, "eager")
    finally:
        type(lm.model)._supports_sdpa = before
    assert eager.model.config._attn_implementation == attention.EAGER
    from softprompt.injection import Injection, Prefix

    prefix = Prefix(lms("llama").kv_of([5, 6, 7]), torch.ones(1, 3, dtype=torch.bool))
    batch = rows_to_batch([[1, 2, 3], [9]], [[3, 4], [8]])
    for injection in (Injection(kv_before=prefix), Injection(kv_after=prefix), None):
        a, b = eager.logits(batch, injection), lms("llama").logits(batch, injection)
        close(a[batch.target_mask], b[batch.target_mask])
        tokens = [
            m.generate(batch, injection, max_new_tokens=4, do_sample=False) for m in (eager, lms("llama"))
        ]
        assert torch.equal(*tokens)
