"""`generate` is measured when it is first called; masks and biases of relatives of T5."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, LayerKV, Prefix
from softprompt.lm.causal import CausalLM
from softprompt.lm.families import tiny
from softprompt.lm.seq2seq import Seq2SeqLM

ROWS = batch_of_ids([[5, 17, 80], [42]])


def test_decoding_that_gives_other_logits_is_refused():
    lm = CausalLM(tiny("llama"), None, "other steps")
    lm.model.model.layers[1].register_forward_hook(lambda m, a, out: out * 1.2 if out.shape[1] == 1 else out)
    with pytest.raises(SoftPromptError, match="does not generate") as error:
        lm.generate(ROWS, max_new_tokens=2)
    assert "step by step" in (error.value.why or "")


def test_decoding_that_is_wrong_beside_other_rows_is_refused():
    lm = CausalLM(tiny("llama"), None, "other steps in a batch")

    def beside(module, given, out):
        return out * 1.2 if out.shape[1] == 1 and out.shape[0] > 1 else out

    lm.model.model.layers[1].register_forward_hook(beside)
    with pytest.raises(SoftPromptError, match="does not generate") as error:
        lm.generate(ROWS, max_new_tokens=2)
    assert "in a padded batch" in (error.value.why or "")


def test_decoding_that_fails_is_refused(monkeypatch):
    lm = CausalLM(tiny("llama"), None, "no steps")

    def fail(*args, **named):
        raise IndexError("list index out of range")

    monkeypatch.setattr(lm.model, "_prepare_cache_for_generation", fail)
    for _ in range(2):  # measured once, and refused each time
        with pytest.raises(SoftPromptError, match="does not generate") as error:
            lm.generate(ROWS, max_new_tokens=2)
        assert "IndexError: list index out of range" in (error.value.why or "")


T5_LIKE = {
    "vocab_size": 101,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "initializer_factor": 1.5,
    "decoder_start_token_id": 1,
    "eos_token_id": None,
}


@pytest.mark.parametrize("family", ["umt5", "switch_transformers"])
def test_prefixes_on_relatives_of_t5(family):
    """In UMT5 each layer has its own biases; the mask of Switch's encoder is one for all its queries."""
    more = {"num_experts": 2, "expert_capacity": 64, "num_sparse_encoder_layers": 1}
    config = AutoConfig.for_model(family, **T5_LIKE, **(more if family != "umt5" else {}))
    torch.manual_seed(0)
    lm = Seq2SeqLM(AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32).eval(), None, family)
    layers = tuple(
        LayerKV(torch.randn(1, s.kv_heads, 3, s.head_dim), torch.randn(1, s.kv_heads, 3, s.v_head_dim))
        for s in lm.spec.layers
    )
    injection = Injection(kv_before=Prefix(layers, torch.ones(1, 3, dtype=torch.bool)))
    inputs, targets = [[5, 17, 80, 33], [42]], [[9, 4], [7]]
    both = lm.logits(batch_of_ids(inputs, targets), injection)
    assert (both - lm.logits(batch_of_ids(inputs, targets))).abs().amax() > 1e-3
    for i in range(2):
        alone = lm.logits(batch_of_ids([inputs[i]], [targets[i]]), injection)[0]
        torch.testing.assert_close(both[i, -len(targets[i]) :], alone, rtol=1e-5, atol=1e-5)
