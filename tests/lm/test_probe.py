"""A model on which injection has no effect is refused, with the reason; the spec is measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, LayerKV, Prefix
from softprompt.lm import attention
from softprompt.lm.causal import CausalLM
from softprompt.lm.injected import current, inject
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


def refuses_prefixes(lm, why: str) -> None:
    """The reason is in the spec, and everything that would need a prefix gives it."""
    assert why in lm.spec.limits["prefix"]
    kv = LayerKV(torch.zeros(1, 2, 1, 8), torch.zeros(1, 2, 1, 8))
    prefix = Prefix((kv,) * 3, torch.ones(1, 1, dtype=torch.bool))
    batch = batch_of_ids([[5, 6]], [[1]])
    for attempt in (
        lambda: lm.kv_of([5, 6]),
        lambda: lm.attention_inputs([5, 6]),
        lambda: lm.logits(batch, Injection(kv_before=prefix)),
        lambda: lm.generate(batch, Injection(kv_after=prefix), max_new_tokens=1),
    ):
        with pytest.raises(SoftPromptError, match="cannot take a prefix") as caught:
            attempt()
        assert why in caught.value.why and "prompt-tuning" in caught.value.fix


def test_attention_that_is_never_called(monkeypatch, new_lm):
    """A family may compute attention without the interface."""
    replaced(monkeypatch, attention.sdpa_attention_forward)
    lm = new_lm("llama")
    refuses_prefixes(lm, "no layer of it calls transformers' attention interface")
    with pytest.raises(SoftPromptError, match="cannot keep its inputs' keys and values"):
        lm.prefill(batch_of_ids([[5, 6]], [[1]]))


def test_attention_that_ignores_what_is_injected(monkeypatch, new_lm):
    replaced(monkeypatch, deaf(lambda _module: True))
    refuses_prefixes(new_lm("llama"), "no gradient came back to a prefix from its attention layers [0, 1, 2]")


def test_one_deaf_layer_is_found(monkeypatch, new_lm):
    replaced(monkeypatch, deaf(lambda module: module.layer_idx == 1))
    refuses_prefixes(new_lm("llama"), "layers [1]")


def deaf(where):
    """Our attention, except that it calls without the injected columns where `where(module)`."""

    def attend(module, query, key, value, attention_mask, **kwargs):
        active = current()
        if active is None or not where(module):
            return attention.attend_sdpa(module, query, key, value, attention_mask, **kwargs)
        with inject(replace(active, columns=())):
            return attention.attend_sdpa(module, query, key, value, attention_mask, **kwargs)

    return attend


def test_model_that_gives_no_gradient_to_its_input(new_lm):
    class Cut(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, hidden_states, **kwargs):
            return self.layer(hidden_states.detach(), **kwargs)

    model = new_lm("llama").model
    model.model.layers[0] = Cut(model.model.layers[0])
    with pytest.raises(SoftPromptError, match="cannot take a soft prompt"):
        CausalLM(model, None, "cut")


def test_model_whose_embeddings_are_not_its_tokens(new_lm):
    model = new_lm("llama").model
    plain = model.forward

    def forward(input_ids=None, inputs_embeds=None, **kwargs):
        scaled = None if inputs_embeds is None else 2 * inputs_embeds
        return plain(input_ids=input_ids, inputs_embeds=scaled, **kwargs)

    model.forward = forward
    with pytest.raises(SoftPromptError, match="cannot take a soft prompt") as caught:
        CausalLM(model, None, "scaled")
    assert "not those to the tokens" in caught.value.why


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
        eager = CausalLM(lm.model, lm.tokenizer, "eager")
    finally:
        type(lm.model)._supports_sdpa = before
    assert eager.model.config._attn_implementation == attention.EAGER
    prefix = Prefix(lms("llama").kv_of([5, 6, 7]), torch.ones(1, 3, dtype=torch.bool))
    batch = rows_to_batch([[1, 2, 3], [9]], [[3, 4], [8]])
    for injection in (Injection(kv_before=prefix), Injection(kv_after=prefix), None):
        a, b = eager.logits(batch, injection), lms("llama").logits(batch, injection)
        close(a[batch.target_mask], b[batch.target_mask])
        tokens = [
            m.generate(batch, injection, max_new_tokens=4, do_sample=False) for m in (eager, lms("llama"))
        ]
        assert torch.equal(*tokens)


def test_a_model_may_be_loaded_where_gradients_are_off(new_lm):
    with torch.no_grad():
        lm = new_lm("llama")
    assert lm.spec == new_lm("llama").spec and not lm.spec.limits
