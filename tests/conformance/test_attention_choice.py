"""`attention="eager"` and `"sdpa"` are one answer; flash attention is refused, and says why."""

from __future__ import annotations

import copy

import pytest
import torch

import softprompt
from softprompt.errors import SoftPromptError
from softprompt.lm import families
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


def test_choices_on_loading(model_folder, refused):
    path = str(model_folder)
    for choice, name in (("auto", "sdpa"), ("sdpa", "sdpa"), ("eager", "eager")):
        lm = softprompt.load(path, attention=choice)
        assert lm.model.config._attn_implementation == f"softprompt_{name}"
    for choice in ("flash", "flash_attention_2"):
        refused(
            lambda c=choice: softprompt.load(path, attention=c), choice, "no mask", "attn_implementation=sdpa"
        )
    refused(lambda: softprompt.load(path, attention="sdpaa"), "'sdpaa'", "'sdpa'")


def test_sdpa_where_transformers_has_none():
    model = families.tiny("gpt_oss")
    with pytest.raises(SoftPromptError, match="gpt_oss") as caught:
        CausalLM(model, None, "gpt_oss", attention="sdpa")
    assert "attn_implementation=eager" in caught.value.fix
