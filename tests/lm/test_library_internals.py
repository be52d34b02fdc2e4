"""The private names of torch and transformers still exist in the installed releases, and do what they did."""

from __future__ import annotations

import tempfile

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from softprompt.lm import library_internals as internals
from softprompt.lm.families import tiny

NAMES = {
    "supports_sdpa": lambda: (
        internals.supports_sdpa(tiny("llama")) and not internals.supports_sdpa(tiny("bloom"))
    ),
    "attention_of": lambda: internals.attention_of(tiny("llama").config) in ("sdpa", "eager"),
    "set_attention_of": lambda: _set(tiny("llama").config) == "eager",
    "position_bucket": lambda: _bucket().tolist() == [[0, 1, 2]],
    "unread_parameters": lambda: _unread() == {"score.weight"},
    "buffers_of": lambda: _buffers(),
    "generation_defaults": lambda: internals.generation_defaults()["top_k"] == 50,
    "softmax_gradient": lambda: _softmax_gradient(),
    "onednn_product": lambda: _product(internals.onednn_product),
    "float16_product": lambda: _product(internals.float16_product),
    "cpu_features": lambda: isinstance(internals.cpu_features().get("avx512_bf16", False), bool),
}


def _set(config) -> str | None:
    internals.set_attention_of(config, "eager")
    return internals.attention_of(config)


def _bucket():
    layer = tiny("t5").decoder.block[0].layer[0].SelfAttention
    return internals.position_bucket(layer, torch.tensor([[0, -1, -2]]))


def _unread() -> frozenset[str]:
    """The checkpoint of a language model has no head for labels."""
    with tempfile.TemporaryDirectory() as folder:
        tiny("llama").save_pretrained(folder)
        return internals.unread_parameters(AutoModelForSequenceClassification.from_pretrained(folder))


def _buffers() -> bool:
    module = torch.nn.BatchNorm1d(2)  # its buffers: running_mean and two more
    new = internals.buffers_of(module)["running_mean"] = torch.ones(2)
    return module.running_mean is new and len(internals.buffers_of(module)) == 3


def _softmax_gradient() -> bool:
    scores = torch.randn(2, 5, requires_grad=True)
    above, weights = torch.randn(2, 5), scores.softmax(-1)
    (expected,) = torch.autograd.grad(weights, scores, above)
    return torch.allclose(internals.softmax_gradient(above, weights.detach()), expected, atol=1e-6)


def _product(make) -> bool:
    weight, bias, rows = torch.randn(4, 8).half().float(), torch.randn(4), torch.randn(3, 8)
    try:
        result = make(weight, bias)(rows)
    except RuntimeError:  # this processor has no such product
        return True
    return torch.allclose(result, rows @ weight.T + bias, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_private_name(name):
    try:
        works = NAMES[name]()
    except (AttributeError, KeyError, TypeError) as error:
        pytest.fail(f"this torch or transformers lost what {internals.__name__}.{name} calls: {error!r}")
    assert works, f"{internals.__name__}.{name} gives another answer with this torch or transformers"


def test_every_function_is_tried():
    public = {
        name
        for name, value in vars(internals).items()
        if getattr(value, "__module__", "") == internals.__name__
    }
    assert public == set(NAMES)
