"""A model under torch.compile answers as without: by the injection of each call, never one it saw before."""

from __future__ import annotations

import os

import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters
from transformers import CompileConfig

from softprompt.injection import Injection, LayerKV, Prefix

pytestmark = pytest.mark.whole

SMALL = {"llama": {"num_hidden_layers": 1}, "t5": {"num_layers": 1}}  # compiling takes a second a layer
HOW = {"max_new_tokens": 3, "do_sample": False}


@pytest.fixture
def lm(family, new_lm):
    return new_lm(family, **SMALL[family])


@pytest.fixture
def compiled(family, new_lm):
    """`compiled(backend)`: a model with the same weights whose forward is compiled."""

    def make(backend: str):
        torch._dynamo.reset()
        counters.clear()
        lm = new_lm(family, **SMALL[family])
        lm.model.forward = torch.compile(lm.model.forward, backend=backend)
        return lm

    yield make
    torch._dynamo.reset()


@pytest.mark.parametrize("family", SMALL)
def test_compiled_logits_are_those_of_the_model(lm, family, compiled, mixed, close):
    other = compiled("eager")
    real = mixed.batch.target_mask
    turned = mixed.injection.select(torch.arange(mixed.batch.size).flip(0))  # the same shapes, other vectors
    with torch.no_grad():
        results = [lm.logits(mixed.batch, one)[real] for one in (mixed.injection, turned, None)]
        for one, expected in zip((mixed.injection, turned, None), results, strict=True):
            close(other.logits(mixed.batch, one)[real], expected)
    assert (results[0] - results[1]).abs().max() > 1e-2
    assert counters["frames"]["ok"] > 0  # something was compiled


@pytest.mark.parametrize("family", ["llama"])
def test_compiled_training_has_the_same_gradients(lm, family, compiled, mixed, close):
    (single, injection), other = mixed.rows[0], compiled("eager")
    results = []
    for model in (lm, other):
        found = injection.kv_before
        leaves = [layer.value.detach().clone().requires_grad_(True) for layer in found.layers]
        layers = [LayerKV(kv.key.detach(), leaf) for kv, leaf in zip(found.layers, leaves, strict=True)]
        logits = model.logits(single, Injection(kv_before=Prefix(tuple(layers), found.mask)))
        results.append(torch.autograd.grad(logits.log_softmax(-1)[..., 3].sum(), leaves))
    for a, b in zip(*results, strict=True):
        close(b, a)
        assert a.abs().max() > 0


@pytest.mark.parametrize("family", ["llama"])
def test_generation_that_compiles_itself(lm, family, mixed, new_lm):
    """With a static cache on a GPU transformers compiles the forward pass; here it is forced to."""
    torch._dynamo.reset()
    counters.clear()
    config = CompileConfig(backend="eager", mode=None)
    config._compile_all_devices = True
    other = new_lm(family, **SMALL[family])
    turned = mixed.injection.select(torch.arange(mixed.batch.size).flip(0))
    for one in (mixed.injection, turned):
        made = other.generate(mixed.batch, one, **HOW, cache_implementation="static", compile_config=config)
        assert torch.equal(made, lm.generate(mixed.batch, one, **HOW))
    assert counters["frames"]["ok"] > 0
    torch._dynamo.reset()


@pytest.mark.skipif(
    not os.environ.get("SOFTPROMPT_SLOW"), reason="half a minute in a C++ compiler; SOFTPROMPT_SLOW=1 runs it"
)
@pytest.mark.parametrize("family", ["llama"])
def test_compiled_to_machine_code(lm, family, compiled, mixed, close):
    other = compiled("inductor")
    real = mixed.batch.target_mask
    with torch.no_grad():
        expected = lm.logits(mixed.batch, mixed.injection)[real]
        close(other.logits(mixed.batch, mixed.injection)[real], expected)
