"""Contracts of a base with `weights="int8"`, for every family and method: exact, as with plain weights."""

from __future__ import annotations

import pytest
import torch

from softprompt.errors import SoftPromptError
from softprompt.lm.int8_weights import Int8Linear, convert

_made: dict[str, object] = {}


@pytest.fixture
def lm(request, new_lm):
    """The family's model with int8 weights, where it has linear layers; else the Llama's."""
    family = request.getfixturevalue("family") if "family" in request.fixturenames else "llama"
    if family not in _made:
        made = new_lm(family)
        try:
            convert(made.model, made.name)
        except SoftPromptError as error:
            _made[family] = error
        else:
            made.weights = "int8"
            _made[family] = made
    if isinstance(_made[family], SoftPromptError):
        assert "no plain linear layers" in str(_made[family])
        pytest.skip("no plain linear layers")
    return _made[family]


def test_a_row_is_the_row_alone(lm, family, mixed, close):
    assert any(isinstance(module, Int8Linear) for module in lm.model.modules())
    with torch.no_grad():
        together = lm.logits(mixed.batch, mixed.injection)
        for logits, real, one in zip(together, mixed.batch.target_mask, mixed.rows, strict=True):
            close(logits[real], lm.logits(*one)[0])


def test_a_cached_input_is_the_input(lm, family, mixed, close):
    if "cache" in lm.spec.limits:
        pytest.skip("it keeps no inputs")
    with torch.no_grad():
        context = lm.prefill(mixed.batch, mixed.injection)
        cached = lm.logits(mixed.batch, mixed.injection, context)
        close(
            cached[mixed.batch.target_mask], lm.logits(mixed.batch, mixed.injection)[mixed.batch.target_mask]
        )


def test_every_method_learns_on_it(lm, case, method, batch):
    from softprompt.lm.apply import injection_for

    logits = lm.logits(batch, injection_for(lm, method, batch))
    logits[batch.target_mask].square().mean().backward()
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
