"""Gradient checkpointing where one layer is run several times, inside others, as in Zamba."""

from __future__ import annotations

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from softprompt.data.collate import batch_of_ids
from softprompt.errors import SoftPromptError
from softprompt.injection import Injection, SoftTokens
from softprompt.lm.causal import CausalLM
from softprompt.lm.families import tiny


class Around(GradientCheckpointingLayer):
    """A layer that runs a shared one after its own."""

    def __init__(self, own: torch.nn.Module, shared: torch.nn.Module) -> None:
        super().__init__()
        self.own, self.shared = own, shared

    def forward(self, hidden_states, **given):
        return self.shared(self.own(hidden_states, **given), **given)


def _model() -> CausalLM:
    model = tiny("llama")
    first, second, third, shared = model.model.layers
    model.model.layers = torch.nn.ModuleList(
        [Around(first, shared), Around(second, shared), Around(third, shared)]
    )
    return CausalLM(model, None, "shared")


def _gradient(lm: CausalLM) -> torch.Tensor:
    vectors = lm.embed(torch.tensor([[9, 10, 11]])).detach().requires_grad_(True)
    soft = SoftTokens(vectors, torch.ones(1, 3, dtype=torch.bool))
    logits = lm.logits(batch_of_ids([[5, 6, 7], [8]], [[9, 4], [3]]), Injection(before=soft))
    return torch.autograd.grad(logits.log_softmax(-1)[..., 4].sum(), vectors)[0]


def test_a_layer_that_is_run_several_times():
    lm = _model()
    plain = _gradient(lm)
    lm.set_gradient_checkpointing(True)
    torch.testing.assert_close(_gradient(lm), plain, rtol=1e-5, atol=1e-6)


def test_layers_inside_others_are_refused(monkeypatch):
    """torch's checkpoints inside others lose track of what each has kept."""
    lm = _model()
    layers = tuple(m for m in lm.model.modules() if isinstance(m, GradientCheckpointingLayer))
    monkeypatch.setattr(CausalLM, "checkpointable_layers", layers)
    with pytest.raises(SoftPromptError, match="gradient checkpointing cannot be combined with") as error:
        lm.set_gradient_checkpointing(True)
    assert "computed again" in (error.value.why or "") or "measured" in (error.value.why or "")


class Counting(GradientCheckpointingLayer):
    """A layer that does something else each time it is run."""

    def __init__(self, own: torch.nn.Module) -> None:
        super().__init__()
        self.own, self.runs = own, 0

    def forward(self, hidden_states, **given):
        self.runs += torch.is_grad_enabled()
        return self.own(hidden_states, **given) * (1 + self.runs % 2)


def test_a_layer_that_is_not_run_again_as_it_was_is_refused():
    model = tiny("llama")
    model.model.layers[1] = Counting(model.model.layers[1])
    lm = CausalLM(model, None, "counting")
    with pytest.raises(SoftPromptError, match="gradient checkpointing cannot be combined with") as error:
        lm.set_gradient_checkpointing(True)
    assert "measured" in (error.value.why or "")
    assert not lm.checkpointed
