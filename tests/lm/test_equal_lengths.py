"""Models whose answers depend on padding are found on load, and run on rows of one length: then exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, SoftTokens
from softprompt.lm.causal import CausalLM

INPUTS = [[5, 17, 80, 33, 9, 71, 3], [42], [60, 61, 7, 12], [8, 8, 30, 2]]
TARGETS = [[11, 12], [90], [4, 70, 70], [19, 20, 21]]


def mixing(model: Any, mix) -> Any:
    """The model with `mix(states)` [B, S, H] added after its second layer's feed-forward part."""
    layer = model.model.layers[1].mlp
    plain = layer.forward
    layer.forward = lambda x: plain(x) + mix(x)
    return model


def running_mean(x):
    """Average all preceding columns, padding included."""
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None]


def crowd(x):
    """Of the batch, so that no row may have a neighbour."""
    return x.mean(0, keepdim=True)


def plain_answer(lm, row: int, soft: torch.Tensor | None = None) -> torch.Tensor:
    """Run the model alone on one row, soft tokens put in by hand: [T, V]."""
    ids = torch.tensor([[*INPUTS[row], *TARGETS[row][:-1]]])
    vectors = lm.embed(ids)
    if soft is not None:
        vectors = torch.cat([soft, vectors], 1)
    return lm.model(inputs_embeds=vectors).logits[0, -len(TARGETS[row]) :]


@pytest.mark.parametrize(("mix", "batching"), [(running_mean, "lengths"), (crowd, "one")])
def test_rows_are_answered_as_alone(new_lm, close, mix, batching):
    lm = CausalLM(mixing(new_lm().model, mix), None, "mixed")
    assert lm.spec.batching == batching and "padding" in lm.spec.limits["cache"]
    soft = torch.randn(1, 3, lm.spec.hidden_size)
    batch = batch_of_ids(INPUTS, TARGETS)
    for injection in (None, Injection(before=SoftTokens(soft, torch.ones(1, 3, dtype=torch.bool)))):
        logits = lm.logits(batch, injection)
        assert logits.shape[:2] == batch.target_ids.shape
        for row in range(batch.size):
            expected = plain_answer(lm, row, None if injection is None else soft)
            close(logits[row][batch.target_mask[row]], expected)


def test_one_pass_for_rows_of_one_length(new_lm, monkeypatch):
    lm = CausalLM(mixing(new_lm().model, running_mean), None, "mixed")
    sizes = []
    plain = lm.model.forward
    monkeypatch.setattr(
        lm.model, "forward", lambda **given: sizes.append(len(given["inputs_embeds"])) or plain(**given)
    )
    lm.logits(batch_of_ids([[5, 6], [7], [8, 9], [1, 2]], [[1]] * 4))
    assert sorted(sizes) == [1, 3]


def test_gradient_and_decoding(new_lm, close):
    lm = CausalLM(mixing(new_lm().model, running_mean), None, "mixed")
    soft = torch.randn(4, 3, lm.spec.hidden_size, requires_grad=True)
    batch = batch_of_ids(INPUTS, TARGETS)
    injection = Injection(before=SoftTokens(soft, torch.ones(4, 3, dtype=torch.bool)))
    lm.logits(batch, injection)[batch.target_mask].square().sum().backward()
    losses = [plain_answer(lm, i, soft[i : i + 1]).square().sum() for i in range(4)]
    (by_hand,) = torch.autograd.grad(torch.stack(losses).sum(), soft)
    assert soft.grad is not None
    close(soft.grad, by_hand, 1e-4)
    # no cache keeps what this model mixes: with one, `generate` is refused
    options = {"max_new_tokens": 3, "do_sample": False, "use_cache": False}
    with pytest.raises(SoftPromptError, match="does not generate"):
        lm.generate(batch, injection, **options | {"use_cache": True})
    two = lm.generate(batch, injection, num_return_sequences=1, **options)
    for i in range(4):
        row = batch_of_ids(INPUTS[i : i + 1])
        own = injection.select(torch.tensor([i]))
        assert two[i].tolist() == lm.generate(row, own, **options)[0].tolist()
    with pytest.raises(SoftPromptError, match="return_dict_in_generate") as caught:
        lm.generate(batch, injection, max_new_tokens=3, return_dict_in_generate=True)
    assert "one row at a time" in caught.value.fix
    hidden = lm.hidden(batch.input_ids, batch.input_mask, 3)
    for i, ids in enumerate(INPUTS):
        alone = lm.model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[3][0]
        close(hidden[i][batch.input_mask[i]], alone)


def test_a_model_that_reads_what_follows_is_refused(new_lm):
    with pytest.raises(SoftPromptError, match="not causal") as caught:
        CausalLM(mixing(new_lm().model, lambda x: x.mean(1, keepdim=True)), None, "both ways")
    assert "follow" in caught.value.why


def test_a_model_that_draws_numbers_is_refused(new_lm):
    with pytest.raises(SoftPromptError, match="two answers"):
        CausalLM(mixing(new_lm().model, torch.randn_like), None, "at random")


def test_rounding_is_no_dependence(new_lm):
    model = new_lm().model.to(torch.bfloat16)
    assert CausalLM(model, None, "rounded").spec.batching == "any"


def test_an_exception_in_the_model_is_an_error_with_its_cause(new_lm):
    def broken(x):
        raise ZeroDivisionError("no way\nand more")

    with pytest.raises(SoftPromptError, match="llama") as caught:
        CausalLM(mixing(new_lm().model, broken), None, "broken")
    assert "ZeroDivisionError: no way" in caught.value.why
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
