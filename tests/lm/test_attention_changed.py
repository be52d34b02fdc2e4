"""A model whose attention is no longer ours is noticed at the next call."""

from __future__ import annotations

import copy

import pytest
import torch

from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, Prefix
from softprompt.lm import attention
from softprompt.lm.causal import CausalLM
from softprompt.lm.families import tiny
from softprompt.lm.joining import Joined, Joining
from softprompt.lm.seq2seq import Seq2SeqLM


def by_method(model) -> None:
    model.set_attn_implementation("sdpa")


def by_configuration(model) -> None:
    model.config._attn_implementation = "eager"


def by_one_layer(model) -> None:
    layer = model.model.layers[1].self_attn
    layer.config = copy.deepcopy(layer.config)
    layer.config._attn_implementation = "sdpa"


def by_registry(model) -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(attention.SDPA, attention.sdpa_attention_forward)


@pytest.fixture
def registry():
    yield
    from transformers import AttentionInterface

    AttentionInterface.register(attention.SDPA, attention.attend_sdpa)


@pytest.fixture(params=[by_method, by_configuration, by_one_layer, by_registry])
def change(request, registry):
    return request.param


def prefix_of(lm) -> Injection:
    return Injection(kv_before=Prefix(lm.kv_of([5, 6, 7]), torch.ones(1, 3, dtype=torch.bool)))


@torch.no_grad()
def test_every_call_notices(change):
    lm = CausalLM(tiny("llama"), None, "llama")
    batch, injection = batch_of_ids([[5, 6], [7, 8, 9]], [[1], [2, 3]]), prefix_of(lm)
    joining = Joining(lm.embed(torch.tensor([5, 6])), 0, injection)
    change(lm.model)
    for call in (
        lambda: lm.logits(batch, injection),
        lambda: lm.prefill(batch, injection),
        lambda: lm.generate(batch, injection, max_new_tokens=2),
        lambda: lm.kv_of([5, 6]),
        lambda: Joined(lm, [joining]).run(lm),
    ):
        with pytest.raises(SoftPromptError, match="attention was changed"):
            call()


def test_an_encoder_decoder_notices():
    lm = Seq2SeqLM(tiny("bart"), None, "bart")
    injection = prefix_of(lm)
    lm.model.model.decoder.set_attn_implementation("sdpa")
    with pytest.raises(SoftPromptError, match="attention was changed"):
        lm.logits(batch_of_ids([[5, 6]], [[1]]), injection)


@torch.no_grad()
def test_a_copy_made_before_the_change_still_works():
    lm = CausalLM(tiny("llama"), None, "llama")
    batch, injection = batch_of_ids([[5, 6], [7, 8, 9]], [[1], [2, 3]]), prefix_of(lm)
    before, other = lm.logits(batch, injection), copy.deepcopy(lm)
    lm.model.set_attn_implementation("sdpa")
    torch.testing.assert_close(other.logits(batch, injection), before, rtol=0, atol=0)
    lm.model.set_attn_implementation(attention.SDPA)  # set back
    torch.testing.assert_close(lm.logits(batch, injection), before, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("depth", ["layer", "attention"])
def test_a_layer_put_in_another_one_s_place_notices(depth):
    """A copy with its own configuration, whether the layer or the attention in it was exchanged."""
    lm = CausalLM(tiny("llama"), None, "llama")
    batch, injection = batch_of_ids([[5, 6]], [[1]]), prefix_of(lm)
    other = copy.deepcopy(lm.model.model.layers[1])
    other.self_attn.config = copy.deepcopy(other.self_attn.config)
    other.self_attn.config._attn_implementation = "sdpa"
    if depth == "layer":
        lm.model.model.layers[1] = other
    else:
        lm.model.model.layers[1].self_attn = other.self_attn
    with pytest.raises(SoftPromptError, match="attention was changed"):
        lm.logits(batch, injection)


def test_a_call_does_not_walk_through_the_model(monkeypatch):
    lm = CausalLM(tiny("llama"), None, "llama")
    injection = prefix_of(lm)
    walked = []
    monkeypatch.setattr(lm.model, "modules", lambda: walked.append(1) or iter(()))
    lm._check(injection)
    assert not walked
