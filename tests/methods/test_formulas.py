"""Each method against its paper's formula, written out for one row; and how many numbers it trains."""

from __future__ import annotations

import math

import pytest
import torch

from softprompt import methods
from softprompt.methods.base import Features

H, D, N, P = 32, 48, 2, 5  # hidden; keys of a vector in all layers (3 x 2 heads x 8); prompts; length


def build(setting, lm, name, perturb, **options):
    return perturb(methods.build(name, setting(lm), {"length": P, **options}))


def vectors(method, prompt: int, inputs=None) -> torch.Tensor:
    (part,) = method(torch.tensor([prompt]), inputs).channels().values()
    return part.vectors[0]


def test_prompt_tuning(llama, setting, perturb):
    method = build(setting, llama, "prompt-tuning", perturb)
    assert torch.equal(vectors(method, 1), method.table[1])


def test_p_tuning_mlp(llama, setting, perturb, close):
    method = build(setting, llama, "p-tuning", perturb, encoder="mlp", hidden=16)
    first, last = method.head[0], method.head[2]
    middle = (method.embedding[1] @ first.weight.T + first.bias).clamp(min=0)
    close(vectors(method, 1), method.anchor[1] + middle @ last.weight.T + last.bias, 1e-6)


def test_p_tuning_lstm(llama, setting, perturb, close):
    method = build(setting, llama, "p-tuning", perturb, encoder="lstm", hidden=16)
    states = method.lstm(method.embedding[1][None])[0][0]  # [P, hidden]
    close(vectors(method, 1), method.anchor[1] + method.head(states), 1e-6)
    assert method.lstm.bidirectional and method.lstm.num_layers == 2


def test_residual_prompt_tuning(llama, setting, perturb, close):
    method = build(setting, llama, "residual-prompt-tuning", perturb, bottleneck=8)
    mlp, row = method.residual, method.table[1]
    out = (row @ mlp.down.weight.T + mlp.down.bias).clamp(min=0) @ mlp.up.weight.T + mlp.up.bias
    normed = (out - out.mean(1, keepdim=True)) / (out.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    close(vectors(method, 1), row + normed * mlp.norm.weight + mlp.norm.bias)


def test_multitask_prompt_tuning(llama, setting, perturb, close):
    method = build(setting, llama, "multitask-prompt-tuning", perturb, rank=3)
    close(vectors(method, 1), method.shared * (method.columns[1] @ method.rows[1]), 1e-6)
    fresh = methods.build("multitask-prompt-tuning", setting(llama), {"length": P, "rank": 3})
    assert (vectors(fresh, 0) - fresh.shared).abs().mean() < 0.1 * fresh.shared.abs().mean()  # starts shared


def test_prefix_tuning_reparameterized(llama, setting, perturb, close):
    method = build(setting, llama, "prefix-tuning", perturb, reparameterize=True, middle=16)
    layers = method(torch.tensor([1])).kv_after.layers
    first, last = method.key_mlp[0], method.key_mlp[2]
    hidden = (method.embedding[1] @ first.weight.T + first.bias).tanh()
    keys = method.keys[1] + hidden @ last.weight.T + last.bias
    for index, layer in enumerate(layers):
        for head in range(2):
            start = index * 16 + head * 8
            close(layer.key[0, head], keys[:, start : start + 8], 1e-6)


def test_prefix_tuning_with_a_scale_a_layer(llama, setting, perturb, close):
    """Each layer's keys are at unit scale times a trained scale; it starts as the prefix without."""
    prompt = torch.tensor([1])
    plain = methods.build("prefix-tuning", setting(llama), {"length": P})
    fresh = methods.build("prefix-tuning", setting(llama), {"length": P, "layer_scale": True})
    for a, b in zip(plain(prompt).kv_after.layers, fresh(prompt).kv_after.layers, strict=True):
        close(a.key, b.key, 1e-6)
        close(a.value, b.value, 1e-6)
    for part in fresh.values[1].split(16, dim=-1):
        assert part.square().mean().item() == pytest.approx(1, rel=1e-5)
    method = build(setting, llama, "prefix-tuning", perturb, layer_scale=True)
    for index, layer in enumerate(method(prompt).kv_after.layers):
        scales = [
            part.start[1, index] * part.change[1, index].exp()
            for part in (method.key_scale, method.value_scale)
        ]
        for head in range(2):
            numbers = slice(index * 16 + head * 8, index * 16 + head * 8 + 8)
            close(layer.key[0, head], method.keys[1, :, numbers] * scales[0], 1e-6)
            close(layer.value[0, head], method.values[1, :, numbers] * scales[1], 1e-6)


@pytest.mark.parametrize("name", ["generated-prompt", "generated-prefix"])
def test_generated(llama, setting, perturb, name, close):
    """Attention of learned queries over the row's own features; padding does not count."""
    method = build(setting, llama, name, perturb, bottleneck=8)
    features = torch.randn(1, 6, H, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[False, False, True, True, True, True]])
    pool, real = method.pooling, features[0, 2:]
    normed = torch.nn.functional.layer_norm(real, (H,), pool.norm.weight, pool.norm.bias)
    keys = normed @ pool.key.weight.T
    values = normed @ pool.value.weight.T + pool.value.bias
    z = (pool.queries @ keys.T / math.sqrt(8)).softmax(-1) @ values
    z = torch.nn.functional.gelu(z)
    injection = method(torch.tensor([1]), Features(features, mask))
    if name == "generated-prompt":
        up = z @ method.up.weight.T + method.up.bias
        close(injection.after.vectors[0], method.table[1] + method.scale * up)
        return
    up = z @ method.up_values.weight.T + method.up_values.bias
    values = method.values[1] + method.value_scale * up
    close(injection.kv_after.layers[2].value[0, 1], values[:, 40:48])


@pytest.mark.parametrize("name", ["generated-prompt", "generated-prefix"])
def test_generated_starts_as_its_static_part(llama, setting, name):
    method = methods.build(name, setting(llama), {"length": P})
    features = Features(torch.randn(2, 4, H), torch.ones(2, 4, dtype=torch.bool))
    made = method(torch.tensor([0, 1]), features).channels()
    for channel, part in method.static(torch.tensor([0, 1])).channels().items():
        if name == "generated-prompt":
            assert torch.equal(part.vectors, made[channel].vectors)
        else:
            assert torch.equal(part.layers[0].key, made[channel].layers[0].key)


POOLING = 2 * H + P * 8 + H * 8 + (H * 8 + 8)  # norm, queries, keys, values


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("prompt-tuning", {}, N * P * H),
        ("p-tuning", {"hidden": 16}, N * P * 16 + (16 * 16 + 16) + (16 * H + H)),
        ("residual-prompt-tuning", {"bottleneck": 8}, N * P * H + (H * 8 + 8) + (8 * H + H) + 2 * H),
        ("multitask-prompt-tuning", {"rank": 3}, P * H + N * (P * 3 + 3 * H)),
        ("prefix-tuning", {}, N * P * 2 * D),
        ("prefix-tuning", {"values_only": True}, N * P * D),
        ("prefix-tuning", {"layer_scale": True}, 2 * N * (P * D + 3)),
        ("prefix-tuning", {"layer_scale": True, "values_only": True}, N * (P * D + 3)),
        ("prefix-tuning", {"freeze_first": True}, N * (P - 1) * 2 * D),
        ("prefix-tuning", {"reparameterize": True, "middle": 16}, N * P * 16 + 2 * (16 * 17 + 16 * D + D)),
        ("generated-prompt", {"bottleneck": 8}, N * P * H + POOLING + (8 * H + H)),
        ("generated-prefix", {"bottleneck": 8}, N * P * 2 * D + POOLING + 2 * (8 * D + D)),
        ("llama-adapter", {"top_layers": 2}, N * 2 * (P * H + 4)),
        ("llama-adapter", {}, N * 1 * (P * H + 4)),  # all layers but the first two
    ],
)
def test_trained_numbers(llama, setting, name, options, count):
    method = methods.build(name, setting(llama), {"length": P, **options})
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == count
    assert method.num_prompts == N


def test_plain_method_injects_nothing(llama, setting):
    method = methods.build("none", setting(llama))
    assert method(torch.tensor([0, 1])).channels() == {} and not list(method.parameters())
    assert method.num_prompts == 2


def test_registry_says_what_each_is():
    for name, method in methods.METHODS.items():
        assert method.summary and method.build.__doc__, name
        assert (method.lr > 0) == (name != "none")
        assert all(p.default is not p.empty for p in method.options().values()), name
