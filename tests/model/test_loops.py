"""Loops of one's own with an attached model: under accelerate, and with its layers compiled."""

from __future__ import annotations

import sys

import pytest
import torch
from tests.conftest import tiny_model, tiny_tokenizer
from tests.lm.test_close import differences, snapshot
from tests.model.by_hand import (
    INPUTS,
    LR,
    TARGETS,
    collate_with,
    mean_loss,
    mean_loss_in_bfloat16,
    new_model,
    rows,
    same_vectors,
    trained_by_hand,
)
from torch.utils.data import DataLoader

import softprompt
from softprompt._system import notes
from softprompt.lm.causal import CausalLM


def epoch(accelerator, model, optimizer, loader):
    losses = []
    for batch in loader:
        with accelerator.accumulate(model):
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def under_accelerate(accelerator, **changes):
    model = new_model()
    optimizer = torch.optim.AdamW(model.soft_prompt.parameters(), lr=LR, weight_decay=0.0)
    loader = DataLoader(rows(), batch_size=4, collate_fn=collate_with(model), **changes)
    return accelerator.prepare(model, optimizer, loader)


@pytest.fixture
def accelerate_anew():
    """Accelerate, without the precision of an earlier Accelerator of this process, and of a later one."""
    state = pytest.importorskip("accelerate").state.AcceleratorState
    state._reset_state(reset_partial_state=True)
    yield sys.modules["accelerate"]
    state._reset_state(reset_partial_state=True)


def test_accelerate_is_the_loop_by_hand(accelerate_anew, tmp_path):
    accelerator = accelerate_anew.Accelerator(cpu=True)
    prepared = under_accelerate(accelerator)
    losses = epoch(accelerator, *prepared)
    accelerator.save_state(tmp_path / "state")
    losses += epoch(accelerator, *prepared)
    twin, lm = new_model(), CausalLM(tiny_model("llama"), None, "llama")
    halves = iter([slice(0, 4), slice(4, 8)] * 2)

    def loss():
        part = next(halves)
        return mean_loss(lm, twin.soft_prompt, INPUTS[part], TARGETS[part])

    assert losses == pytest.approx(trained_by_hand(twin, loss, steps=4), abs=1e-5)
    same_vectors(prepared[0], twin)
    trained = [p.detach().clone() for p in prepared[0].soft_prompt.parameters()]
    other = under_accelerate(accelerator)  # a second start of the script
    accelerator._models, accelerator._optimizers = [other[0]], [other[1]]
    accelerator.load_state(tmp_path / "state")
    assert epoch(accelerator, *other) == losses[2:]
    for one, before in zip(other[0].soft_prompt.parameters(), trained, strict=True):
        assert torch.equal(one, before)
    unwrapped = accelerator.unwrap_model(other[0])
    unwrapped.save_pretrained(tmp_path / "prompt")
    assert (tmp_path / "prompt" / "softprompt.json").exists()


def test_accelerate_in_bfloat16_is_the_loop_in_autocast(accelerate_anew):
    prepared = under_accelerate(accelerate_anew.Accelerator(cpu=True, mixed_precision="bf16"))
    losses = epoch(accelerate_anew.Accelerator(), *prepared)
    twin, lm = new_model(), CausalLM(tiny_model("llama"), None, "llama")
    halves = iter([slice(0, 4), slice(4, 8)])

    def loss(of=mean_loss_in_bfloat16):
        part = next(halves)
        return of(lm, twin.soft_prompt, INPUTS[part], TARGETS[part])

    assert losses == pytest.approx(trained_by_hand(twin, loss, steps=2), abs=1e-5)
    same_vectors(prepared[0], twin)
    halves = iter([slice(0, 4)])
    half = mean_loss_in_bfloat16(lm, twin.soft_prompt, INPUTS[:4], TARGETS[:4])
    exact = loss(mean_loss)
    assert abs((exact - half).item()) > 1e-5  # so it was bfloat16


def quantised():
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    model = tiny_model("llama")
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    return model


@pytest.mark.parametrize("config", [softprompt.PromptTuning, softprompt.PrefixTuning])
def test_a_quantised_base_is_the_loop_by_hand(config, tmp_path):
    chosen = config(length=3, placement="before")
    model, twin = (softprompt.attach(quantised(), tiny_tokenizer(), chosen) for _ in range(2))
    lm, batch = CausalLM(quantised(), None, "llama"), collate_with(model)(rows())
    exact = mean_loss(CausalLM(tiny_model("llama"), None, "llama"), twin.soft_prompt, INPUTS, TARGETS)
    assert abs((model(**batch).loss - exact).item()) > 1e-4  # so the base was quantised
    losses = trained_by_hand(model, lambda: model(**batch).loss)
    by_hand = trained_by_hand(twin, lambda: mean_loss(lm, twin.soft_prompt, INPUTS, TARGETS))
    assert losses == pytest.approx(by_hand, abs=1e-5)
    same_vectors(model, twin)
    model.save_pretrained(tmp_path)
    again = softprompt.SoftPromptModel.from_pretrained(quantised(), tmp_path, tiny_tokenizer())
    assert torch.equal(again(**batch).loss, model(**batch).loss)


def test_compiled_layers_give_the_same_gradient(perturb):
    """The backend runs what dynamo captured as it is: a C++ compiler is not everywhere."""
    torch._dynamo.reset()
    config = softprompt.PrefixTuning(length=3, placement="before", init="random")
    base = tiny_model("llama", num_hidden_layers=1)
    before, captured = snapshot(base), []
    model = softprompt.attach(base, tiny_tokenizer(), config)
    eager = softprompt.attach(tiny_model("llama", num_hidden_layers=1), tiny_tokenizer(), config)

    def backend(graph, inputs):
        captured.append(graph)
        return graph.forward

    model.compile(backend=backend)
    batch = collate_with(model)(rows()[:3])
    for _ in range(2):  # the second time with other vectors, which must not be those of the first
        for each in (model, eager):
            each.zero_grad()
            each(**batch).loss.backward()
        assert (model(**batch).logits - eager(**batch).logits).abs().max() <= 1e-5
        for one, other in zip(model.soft_prompt.parameters(), eager.soft_prompt.parameters(), strict=True):
            assert (one.grad - other.grad).abs().max() <= 1e-5
        perturb(model.soft_prompt)
        eager.soft_prompt.load_state_dict(model.soft_prompt.state_dict())
    assert captured
    model.detach()
    assert not differences(before, snapshot(base))
    torch._dynamo.reset()


def test_compiling_the_whole_model_compiles_nothing_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(notes, "_shown", set())
    model = new_model()
    batch = collate_with(model)(rows()[:3])
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(compiled(**batch).logits, model(**batch).logits)
    assert "model.compile()" in caplog.text
    torch._dynamo.reset()
