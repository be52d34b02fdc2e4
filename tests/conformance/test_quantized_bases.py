"""Contract 2 on a base whose weights are int8: the prompt is not, and gradient reaches it.

torchao runs on a CPU, bitsandbytes where it is installed; a GGUF base is dequantized on loading, and is what
tests/real runs on.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch

from softprompt.data.collate import batch_of_ids
from softprompt.lm.apply import injection_for
from softprompt.lm.causal import CausalLM


def torchao_int8(model, folder):
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model


def bitsandbytes_int8(model, folder):
    if importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model.save_pretrained(folder)
    # a threshold would pick columns by the whole batch: rows of the plain model then depend on each other
    config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32)


@pytest.mark.parametrize("quantize", [torchao_int8, bitsandbytes_int8], ids=["torchao", "bitsandbytes"])
@pytest.mark.parametrize("case_id", ["prefix-tuning-before", "prefix-tuning-after", "prompt-tuning-before"])
def test_a_quantized_base(quantize, case_id, new_lm, build, all_cases, batch, row, unpadded, close, tmp_path):
    base = new_lm("llama")
    lm = CausalLM(quantize(base.model, tmp_path), base.tokenizer, base.name)
    method = build(lm, next(c for c in all_cases if c.id == case_id))
    injection = injection_for(lm, method, batch)
    logits = lm.logits(batch, injection)
    for i in range(batch.size):
        alone = row(batch, i)
        close(unpadded(logits, batch, i), lm.logits(alone, injection_for(lm, method, alone))[0], 1e-4)
    logits[batch.target_mask].square().mean().backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    made = lm.generate(batch, injection, max_new_tokens=3, do_sample=False)
    for i in range(batch.size):
        ids = batch.input_ids[i][batch.input_mask[i]].tolist()
        single = batch_of_ids([ids], [[]], [int(batch.prompt_ids[i])])
        one = injection.select(torch.tensor([i]))
        assert torch.equal(lm.generate(single, one, max_new_tokens=3, do_sample=False), made[i : i + 1])
