"""`attention="eager"`, `"sdpa"` and `"flash"` are one answer; another is refused, and says why."""

from __future__ import annotations

import copy

import pytest
import torch

import softprompt
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, LayerKV, Prefix
from softprompt.lm import families, flash_attention
from softprompt.lm.causal import CausalLM

FAMILIES = ("llama", "mistral", "gemma3_text", "qwen3_next", "deepseek_v3", "gpt_neox", "t5", "bart")
_chosen: dict[tuple[str, str], object] = {}


@pytest.fixture
def chosen(family, lms):
    """`chosen(attention)`: the family's weights under the attention named."""

    def get(attention: str):
        if (family, attention) not in _chosen:
            whole = lms(family)
            made = type(whole)(copy.deepcopy(whole.model), whole.tokenizer, family, attention=attention)
            _chosen[family, attention] = made
        return _chosen[family, attention]

    return get


@pytest.mark.parametrize("family", FAMILIES)
def test_eager_and_sdpa_give_the_same_numbers(family, chosen, lm, mixed, close):
    eager, fused = chosen("eager"), chosen("sdpa")
    implementations = [lm.model.config._attn_implementation for lm in (eager, fused)]
    assert implementations == ["softprompt_eager", "softprompt_sdpa"]
    real = mixed.batch.target_mask
    with torch.no_grad():
        a, b = (lm.logits(mixed.batch, mixed.injection)[real] for lm in (eager, fused))
    close(a, b)
    how = {"max_new_tokens": 5, "do_sample": False}
    made = [lm.generate(mixed.batch, mixed.injection, **how) for lm in (eager, fused)]
    assert torch.equal(*made)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_eager_attention_shows_its_weights(family, chosen, lm, mixed, close):
    """What each token takes from an injected column and from each token; together 1."""
    eager = chosen("eager")
    single, injection = mixed.rows[0]  # a prefix of two vectors
    how = {"max_new_tokens": 2, "do_sample": False, "return_dict_in_generate": True}
    out = eager.generate(single, injection, **how, output_attentions=True)
    name = "attentions" if eager.spec.kind == "decoder" else "decoder_attentions"
    for layer in out[name][1]:
        columns = 2 + (single.input_ids.shape[1] + 1 if name == "attentions" else 2)
        assert layer.shape[-2:] == (1, columns) and (layer[..., :2] > 0).all()
        close(layer.sum(-1), torch.ones_like(layer.sum(-1)))


# full attention, layers with windows among them, layers without attention, and per-layer embeddings
FLASH = ("llama", "gpt2", "gemma3_text", "qwen3_next", "gemma3n_text", "cohere2")


@pytest.mark.parametrize("family", FLASH)
def test_flash_and_sdpa_give_the_same_numbers(family, chosen, lm, mixed, close, monkeypatch):
    """Prefixes of several lengths, an infix, adapters and soft tokens, row by row."""
    taken = []
    attend = flash_attention.attend
    monkeypatch.setattr(
        flash_attention, "attend", lambda *given: taken.append(len(given[1])) or attend(*given)
    )
    fused, flash = chosen("sdpa"), chosen("flash")
    assert flash.model.config._attn_implementation == "softprompt_packed"
    real = mixed.batch.target_mask
    with torch.no_grad():
        a, b = (lm.logits(mixed.batch, mixed.injection)[real] for lm in (flash, fused))
    close(a, b)
    how = {"max_new_tokens": 5, "do_sample": False}
    made = [lm.generate(mixed.batch, mixed.injection, **how) for lm in (flash, fused)]
    assert torch.equal(*made)
    assert max(taken) > 1  # with a prefix


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_flash_and_sdpa_give_a_prefix_the_same_gradient(family, chosen, rows_to_batch, close):
    """From a cached context, for a prefix of one row and for one of a row each that one row lacks."""
    batch = rows_to_batch([[5, 6, 7, 8], [9, 3], [4, 8, 12]], [[1, 2], [2], [3, 5, 6]])
    spec = chosen("sdpa").spec
    for rows, mask in ((1, [[1, 1, 1]]), (3, [[0, 1, 1], [1, 1, 1], [0, 0, 0]])):
        torch.manual_seed(rows)
        layers = tuple(
            LayerKV(
                torch.randn(rows, s.kv_heads, 3, s.head_dim), torch.randn(rows, s.kv_heads, 3, s.v_head_dim)
            )
            for s in spec.layers
        )
        leaves = [t.requires_grad_() for layer in layers for t in (layer.key, layer.value)]
        prefix = Prefix(layers, torch.tensor(mask, dtype=torch.bool))
        for injection in (Injection(kv_before=prefix), Injection(kv_after=prefix)):
            gradients = []
            for lm in (chosen("flash"), chosen("sdpa")):
                head = Injection(kv_before=injection.kv_before)
                logits = lm.logits(batch, injection, lm.prefill(batch, head))
                gradients.append(torch.autograd.grad(logits[batch.target_mask].square().mean(), leaves))
            for mine, theirs in zip(*gradients, strict=True):
                close(mine, theirs)
            assert all(g.abs().max() > 0 for g in gradients[0])


@pytest.mark.parametrize("family", ["mistral", "deepseek_v3", "gemma4_text", "t5"])
def test_flash_where_it_has_no_effect(family, chosen):
    """All layers have windows, values of another size, or a mask that the model itself reads."""
    with pytest.raises(SoftPromptError, match=r"attn_implementation='flash'") as caught:
        chosen("flash")
    assert "attn_implementation=sdpa" in caught.value.fix


def test_choices_on_loading(model_folder, refused):
    path = str(model_folder)
    for choice, name in (("auto", "sdpa"), ("sdpa", "sdpa"), ("eager", "eager"), ("flash", "packed")):
        lm = softprompt.load(path, attention=choice)
        assert lm.model.config._attn_implementation == f"softprompt_{name}"
    for choice in ("flash_attention_2", "flex_attention"):
        refused(
            lambda c=choice: softprompt.load(path, attention=c),
            choice,
            "no place",
            "attn_implementation=flash",
        )
    refused(lambda: softprompt.load(path, attention="sdpaa"), "'sdpaa'", "'sdpa'")


def test_sdpa_where_transformers_has_none():
    model = families.tiny("gpt_oss")
    with pytest.raises(SoftPromptError, match="gpt_oss") as caught:
        CausalLM(model, None, "gpt_oss", attention="sdpa")
    assert "attn_implementation=eager" in caught.value.fix
