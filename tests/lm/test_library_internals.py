"""The private names of torch and transformers still exist in the installed releases, and do what they did."""

from __future__ import annotations

import tempfile

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForSequenceClassification

from softprompt.lm import library_internals as internals
from softprompt.lm.families import tiny

NAMES = {
    "supports_sdpa": lambda: (
        internals.supports_sdpa(tiny("llama")) and not internals.supports_sdpa(tiny("bloom"))
    ),
    "supports_flash": lambda: (
        internals.supports_flash(tiny("llama")) and not internals.supports_flash(tiny("bloom"))
    ),
    "packed_flash": lambda: _packed()[:2] == [(6, 4, 8), (4, 6)],
    "packed_flash_gradient": lambda: _packed()[2:] == [(6, 4, 8), (7, 2, 8), (7, 2, 8)],
    "row_flash": lambda: _row(),
    "row_flash_gradient": lambda: _row(gradient=True),
    "attention_of": lambda: internals.attention_of(tiny("llama").config) in ("sdpa", "eager"),
    "set_attention_of": lambda: _set(tiny("llama").config) == "eager",
    "position_bucket": lambda: _bucket().tolist() == [[0, 1, 2]],
    "unread_parameters": lambda: _unread() == {"score.weight"},
    "buffers_of": lambda: _buffers(),
    "generation_defaults": lambda: internals.generation_defaults()["top_k"] == 50,
    "softmax_gradient": lambda: _softmax_gradient(),
    "onednn_product": lambda: _product(internals.onednn_product),
    "float16_product": lambda: _product(internals.float16_product),
    "int8_product": lambda: _int8_product(),
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


def _int8_product() -> bool:
    weight = torch.arange(-64, 64).view(4, 32).to(torch.int8)
    scale, bias, rows = torch.tensor([0.5, 1, 2, 4]), torch.ones(4), torch.randn(2, 3, 32).bfloat16().float()
    result = internals.int8_product(weight, scale, bias)(rows)
    expected = rows @ (weight.float() * scale[:, None]).T + bias
    return result.shape == (2, 3, 4) and torch.allclose(result, expected, rtol=1e-2, atol=2)


def _packed() -> list[tuple[int, ...]]:
    """Shapes of what the kernels of a GPU give, from torch's own description of them."""
    with FakeTensorMode():

        def make(*shape: int, dtype=torch.bfloat16) -> torch.Tensor:
            return torch.empty(*shape, dtype=dtype, device="cuda")

        query, key, value = make(6, 4, 8), make(7, 2, 8), make(7, 2, 8)
        how = ((make(3, dtype=torch.int32), make(3, dtype=torch.int32)), (1, 5), True, 0.3)
        out, lse = internals.packed_flash(query, key, value, *how)
        return [
            tuple(t.shape)
            for t in (out, lse, *internals.packed_flash_gradient(out, query, key, value, out, lse, *how))
        ]


def _row(gradient: bool = False) -> bool:
    """Grouped heads and a mask, against the softmax written out."""
    query, key, value = (torch.randn(1, n, m, 8, requires_grad=True) for n, m in ((4, 3), (2, 5), (2, 5)))
    mask = torch.full((3, 5), -torch.inf).triu(3)
    scores = query @ key.repeat_interleave(2, 1).transpose(2, 3) * 0.3 + mask
    expected = scores.softmax(-1) @ value.repeat_interleave(2, 1)
    with torch.no_grad():
        out, lse = internals.row_flash(query, key, value, mask, 0.3)
    if not gradient:
        pairs = [(out, expected), (lse, scores.logsumexp(-1))]
    else:
        above = torch.randn_like(out)
        with torch.no_grad():
            parts = internals.row_flash_gradient(above, query, key, value, out, lse, mask, 0.3)
        pairs = list(zip(parts, torch.autograd.grad(expected, (query, key, value), above), strict=True))
    return all(torch.allclose(a, b, atol=1e-5) for a, b in pairs)


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
