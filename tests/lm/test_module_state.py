"""RecurrentGemma's layers keep their state on themselves: no row may continue from another's."""

from __future__ import annotations

import torch
from transformers import RecurrentGemmaConfig, RecurrentGemmaForCausalLM

from softprompt.data.collate import batch_of_ids
from softprompt.lm.causal import CausalLM


def test_a_row_of_one_token_begins_anew():
    config = RecurrentGemmaConfig(
        vocab_size=101,
        hidden_size=32,
        lru_width=32,
        intermediate_size=48,
        num_hidden_layers=2,
        block_types=["recurrent", "attention"],
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        attention_window_size=8,
        w_init_variance_scale=1.0,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    model = RecurrentGemmaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    lm = CausalLM(model, None, "recurrent")
    row = batch_of_ids([[42]])

    def made():
        return lm.generate(
            row, max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_logits=True
        )

    fresh = made().logits[0]
    lm.generate(batch_of_ids([[5, 17, 80, 33, 9]]), max_new_tokens=4, do_sample=False)
    assert torch.equal(made().logits[0], fresh)
    torch.testing.assert_close(fresh, lm.logits(batch_of_ids([[42]], [[0]]))[0], rtol=1e-5, atol=1e-5)
