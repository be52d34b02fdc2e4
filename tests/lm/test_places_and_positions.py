"""Vectors have the positions that the model itself would give them, and have an effect there."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, LayerKV, Prefix, SoftTokens
from softprompt.lm import families, probe_places
from softprompt.lm.causal import CausalLM
from softprompt.lm.families import ENCODER_DECODERS, tiny
from softprompt.lm.seq2seq import Seq2SeqLM
from softprompt.methods import llama_adapter, prefix_tuning
from softprompt.methods.base import Setting

INPUTS, TARGETS = ([5, 17, 80, 33, 9, 71, 3], [42, 7]), ([11, 12], [90])
ABSENT = {"attention_window": 4, "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 64}


def batch():
    return batch_of_ids(INPUTS, TARGETS)


def decoder_of(family: str):
    """An encoder family as a decoder; its positions begin behind the padding index."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    more = {"vocab_size": 101, "max_position_embeddings": 64, "initializer_range": 0.2, "pad_token_id": 1}
    ends = {"bos_token_id": None, "eos_token_id": None}
    config = AutoConfig.for_model(family, is_decoder=True, **sizes, **more, **ends)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


@torch.no_grad()
@pytest.mark.parametrize("family", ["roberta", "xlm-roberta", "camembert", "roberta-prelayernorm"])
def test_positions_begin_where_the_model_begins(family):
    plain, lm = decoder_of(family), CausalLM(decoder_of(family), None, family)
    assert lm.spec.context == 62
    logits, cached = lm.logits(batch()), lm.logits(batch(), None, lm.prefill(batch()))
    for i, (row, target) in enumerate(zip(INPUTS, TARGETS, strict=True)):
        alone = plain(input_ids=torch.tensor([row + target])).logits[0, len(row) - 1 : -1]
        for found in (logits, cached):
            torch.testing.assert_close(found[i, -len(target) :], alone, rtol=0, atol=1e-5)
    soft = SoftTokens(lm.embed(torch.tensor([[9, 10]])), torch.ones(1, 2, dtype=torch.bool))
    for injection in (Injection(), Injection(before=soft), Injection(after=soft)):
        made = lm.generate(batch_of_ids(INPUTS), injection, max_new_tokens=4, do_sample=False).tolist()
        again = lm.logits(batch_of_ids(INPUTS).with_targets(made), injection)
        assert made == again.argmax(-1).tolist()
    ids = [INPUTS[0]]
    expected = plain(input_ids=torch.tensor(ids)).logits[0, -1].argmax()
    assert lm.generate(batch_of_ids(ids), max_new_tokens=1, do_sample=False).item() == expected


@pytest.mark.parametrize("family", ["led", "mvp"])
def test_a_decoder_that_takes_no_columns(family, monkeypatch):
    settings = ENCODER_DECODERS["bart"] | ABSENT | {"model_type": family}
    monkeypatch.setitem(ENCODER_DECODERS, family, settings)
    monkeypatch.setitem(families.FAMILIES, family, settings)
    lm = Seq2SeqLM(tiny(family), None, family)
    soft = SoftTokens(lm.embed(torch.tensor([[9, 10]])), torch.ones(1, 2, dtype=torch.bool))
    assert lm.logits(batch(), Injection(before=soft)).isfinite().all()
    for call in (lm.logits, lm.generate):
        with pytest.raises(SoftPromptError, match="in its decoder") as caught:
            call(batch(), Injection(before=soft, decoder=soft))
        assert "no effect" in caught.value.why and "placement=before" in caught.value.fix


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_each_place_of_the_listed_families_has_an_effect(family):
    assert probe_places.places_without_effect(Seq2SeqLM(tiny(family), None, family)) == []


@pytest.mark.parametrize("family", ["llama", "deepseek_v3", "qwen3_next", "gptj"])
@pytest.mark.parametrize("place", ["kv_before", "kv_after"])
def test_autocast_has_a_gradient(family, place):
    """The backward pass runs outside of autocast, as torch asks for. bfloat16 has 8 bits."""
    lm, gradients = CausalLM(tiny(family), None, family), []
    for enabled in (False, True):
        layers = list(lm.kv_of([9, 10, 11]))
        site = max(i for i, layer in enumerate(layers) if layer is not None)
        value = layers[site].value.clone().requires_grad_(True)
        layers[site] = LayerKV(layers[site].key, value)
        injection = Injection(**{place: Prefix(tuple(layers), torch.ones(1, 3, dtype=torch.bool))})
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = lm.logits(batch(), injection).float().square().mean()
        loss.backward()
        gradients.append(value.grad)
    # rounding sends some tokens to other experts, so the direction is compared
    assert torch.cosine_similarity(gradients[0].flatten(), gradients[1].flatten(), dim=0) > 0.9


@pytest.mark.parametrize("family", ["llama", "deepseek_v32", "diffllama"])
def test_a_llama_adapter_is_trained_after_it_was_used(family):
    lm = CausalLM(tiny(family), None, family)
    method = llama_adapter.build(Setting(lm, examples=((5, 6, 7, 8, 9),)), length=3)
    with torch.no_grad():
        method.gates.fill_(0.5)
    ids, real = torch.zeros(2, dtype=torch.long), batch().target_mask
    with torch.inference_mode():
        used = lm.logits(batch(), method(ids))[real]
    logits = lm.logits(batch(), method(ids))[real]
    torch.testing.assert_close(used.clone(), logits, rtol=0, atol=1e-5 * logits.abs().max().item())
    logits.square().mean().backward()
    assert method.vectors.grad.abs().max() > 0 and method.gates.grad.abs().max() > 0


@torch.no_grad()
def test_keys_that_turn_the_other_way_round_are_moved():
    lm = CausalLM(tiny("llama", model_type="nanochat"), None, "nanochat")
    text, rest = [5, 17, 80], [33, 9]
    prefix = Injection(kv_before=Prefix(lm.kv_of(text), torch.ones(1, 3, dtype=torch.bool)))
    whole = lm.logits(batch_of_ids([text + rest], [[4, 8]]))
    found = lm.logits(batch_of_ids([rest], [[4, 8]]), prefix)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-5 * whole.abs().max().item())


def test_the_fix_for_keys_that_cannot_be_moved_works():
    """Keys are normed behind the rotation, so how they turn is not recognised."""
    lm = CausalLM(tiny("llama", model_type="hunyuan_v1_dense", head_dim=8), None, "hunyuan_v1_dense")
    setting = Setting(lm, examples=((5, 6, 7, 8, 9),))
    for options in ({"init": "context"}, {"placement": "after", "init": "random"}):
        with pytest.raises(SoftPromptError, match="cannot be moved") as caught:
            lm.logits(batch(), prefix_tuning.build(setting, length=3, **options)(torch.zeros(2).long()))
        assert "placement=before with init=random" in caught.value.fix
    method = prefix_tuning.build(setting, length=3, placement="before", init="random")
    lm.logits(batch(), method(torch.zeros(2).long())).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())


def test_a_model_in_pefts_wrapper_is_refused():
    peft = pytest.importorskip("peft")
    with torch.random.fork_rng(devices=[]):
        wrapped = peft.get_peft_model(
            tiny("gpt2"), peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False)
        )
    with pytest.raises(SoftPromptError, match="no base model") as caught:
        CausalLM(wrapped, None, "gpt2")
    assert "merge_and_unload" in caught.value.fix
    plain = wrapped.merge_and_unload()
    ids = torch.tensor([[5, 17, 80, 33]])
    expected = plain(input_ids=ids).logits[0, 1:3]
    found = CausalLM(plain, None, "gpt2").logits(batch_of_ids([[5, 17]], [[80, 33]]))[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
