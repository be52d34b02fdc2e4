"""The cost of unrelated text, a chunk at a time, and none of it without a prompt."""

from __future__ import annotations

import pytest
import torch

from softprompt import methods
from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.evaluation.leakage import leakage
from softprompt.evaluation.likelihood import target_nll
from softprompt.evaluation.unrelated_text import TEXT
from softprompt.methods.materialised import materialise


def test_without_a_prompt_nothing_leaks(llama, setting):
    found = leakage(llama, methods.build("none", setting(llama)))
    assert (found.change.value, found.change.low, found.change.high) == (0, 0, 0)
    assert found.plain > 0 and found.prompts == 2


@pytest.mark.parametrize("name", ["prefix-tuning", "prompt-tuning"])
def test_it_is_the_mean_of_chunks_scored_one_by_one(llama, setting, perturb, name):
    method = perturb(methods.build(name, setting(llama)))
    text, chunk, lead = TEXT[:330], 20, 5
    ids = llama.text_ids(text)
    found = leakage(llama, method, text, chunk=chunk, lead=lead)
    changes, plain = [], []
    for start in range(0, len(ids) - chunk + 1, chunk):
        part = ids[start : start + chunk]
        batch = batch_of_ids([part[:lead]], [part[lead:]])
        with torch.no_grad():
            bare = target_nll(llama.logits(batch), batch).item()
            for prompt in materialise(method).prompts:
                changes.append(target_nll(llama.logits(batch, prompt), batch).item() - bare)
        plain.append(bare)
    tokens = (chunk - lead) * len(plain)
    assert found.chunks == len(plain) == 16 and found.change.n == tokens
    # a small difference of float32 sums of some 70 nats
    assert found.change.value == pytest.approx(sum(changes) / 2 / tokens, rel=1e-4, abs=1e-6)
    assert found.plain == pytest.approx(sum(plain) / tokens, rel=1e-5)
    assert found.change.low < found.change.value < found.change.high


def test_prompts_can_be_chosen_and_generated_ones_read_the_text(llama, setting, perturb):
    method = perturb(methods.build("generated-prefix", setting(llama)))
    both, first, second = (leakage(llama, method, TEXT[:400], prompts=p) for p in (None, [0], [1]))
    assert both.change.value == pytest.approx((first.change.value + second.change.value) / 2, rel=1e-5)
    assert first.change.value != 0


def test_a_text_of_one_chunk_and_a_model_without_text_are_refused(llama, setting, encoders):
    method = methods.build("none", setting(llama))
    with pytest.raises(SoftPromptError, match="1 chunks"):
        leakage(llama, method, TEXT[:70])
    with pytest.raises(SoftPromptError, match="predict text"):
        leakage(encoders("bert"), method)


def test_the_text_that_comes_along_is_long_enough_for_an_interval():
    assert len(TEXT.split()) > 600 and "\n" not in TEXT.replace("\n\n", "")
