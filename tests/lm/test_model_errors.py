"""What a model raises while it is run reaches the user as an error with its reason and its cause."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.lm.causal import CausalLM
from softprompt.lm.encoder import EncoderLM
from softprompt.lm.families import tiny

IDS, MASK = torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.bool)
CALLS = {
    "logits": lambda lm: lm.logits(batch_of_ids([[5, 6], [7]], [[1], [2]], places=[[0], [0]])),
    "hidden": lambda lm: lm.hidden(IDS, MASK, 1),
    "kv_of": lambda lm: lm.kv_of([5, 6, 7]),
    "generate": lambda lm: lm.generate(batch_of_ids([[5, 6], [7]]), max_new_tokens=2),
    "prefill": lambda lm: lm.prefill(batch_of_ids([[5, 6], [7]])),
}
SOME = ("logits", "hidden", "kv_of")


def break_first_layer(lm, error: Exception) -> None:
    def broken(*args, **named):
        raise error

    layers = next(m for m in lm.model.modules() if isinstance(m, nn.ModuleList))
    layers[0].forward = broken


@pytest.mark.parametrize(
    ("family", "call"),
    [
        *(("llama", call) for call in CALLS),
        *(("t5", call) for call in (*SOME, "generate")),
        *(("bert", call) for call in SOME),
    ],
)
def test_every_call_of_the_model(new_lm, family, call):
    lm = EncoderLM(tiny("bert"), None, "bert") if family == "bert" else new_lm(family)
    error = IndexError("out of range\nand more")
    break_first_layer(lm, error)
    with pytest.raises(SoftPromptError, match=r"cannot be run|does not generate") as caught:
        CALLS[call](lm)
    assert "IndexError: out of range" in caught.value.why and "and more" not in caught.value.why
    assert caught.value.__cause__ is error


def test_missing_memory_stays_what_it_is(new_lm):
    """The caller may try again with less."""
    lm = new_lm()
    break_first_layer(lm, RuntimeError("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        CALLS["logits"](lm)


def test_a_callers_own_exception_stays_what_it_is(new_lm):
    class Enough(Exception):
        pass

    def stop(ids, scores, **more):
        raise Enough

    with pytest.raises(Enough):
        new_lm().generate(batch_of_ids([[5, 6]]), max_new_tokens=2, stopping_criteria=[stop])


def test_a_model_that_reads_one_token_only_is_refused():
    model = tiny("llama")
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
    with pytest.raises(SoftPromptError, match="soft prompt") as caught:
        CausalLM(model, None, "blind")
    assert "does not depend on the other tokens" in caught.value.why


def test_a_model_without_numbers_is_refused():
    model = tiny("llama")
    model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(SoftPromptError, match="soft prompt") as caught:
        CausalLM(model, None, "broken")
    assert "not numbers" in caught.value.why
