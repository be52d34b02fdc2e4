"""Operations against a count by hand of a tiny Llama, and sizes against shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import softprompt
from softprompt import methods
from softprompt.compare.measures.cost import (
    added_tokens,
    count_flops,
    training_flops,
)
from softprompt.methods.side_by_side import SideBySide
from softprompt.training.trained import artifact_bytes

HIDDEN, LAYERS, MIDDLE, VOCAB = 32, 3, 48, 101
HEADS, KV_HEADS, HEAD = 4, 2, 8
WEIGHTS = HIDDEN * (HEADS + KV_HEADS + KV_HEADS + HEADS) * HEAD + 3 * HIDDEN * MIDDLE  # of a layer's products


def linear(positions: int) -> int:
    return 2 * LAYERS * WEIGHTS * positions


def attention(queries: int, keys: int) -> int:
    """Products with keys and with values."""
    return LAYERS * 2 * HEADS * queries * keys * (HEAD + HEAD)


def head(targets: int) -> int:
    return 2 * HIDDEN * VOCAB * targets


@pytest.fixture
def examples(evaluator):
    encoder = evaluator().encoder
    rows = [{"input": "abcdefghi", "target": "xyz", "prompt": p} for p in ("joke", "fact")]
    return encoder.encode_rows(rows)  # 9 tokens; 4 of target, with its space and end: " xyz" and the end, 5


def build(llama, setting, name, **options):
    return methods.build(name, setting(llama), options)


def test_the_example_is_as_long_as_the_counts_take_it_to_be(examples):
    assert [(len(e.input_ids), len(e.target_ids)) for e in examples] == [(9, 5), (9, 5)]


def test_a_forward_pass_counts_products_and_attention(llama, rows_to_batch):
    batch = rows_to_batch([list(range(9))], [list(range(5))])
    length = 9 + 4  # the last target is not fed back
    with torch.no_grad():
        logits, counted = count_flops(lambda: llama.logits(batch))
    assert logits.shape == (1, 5, VOCAB)
    assert counted == linear(length) + attention(length, length) + head(5)


def test_fused_attention_counts_on_a_cpu_both_ways():
    """Forward two products; backward the scores again, and a gradient each of four."""
    query = torch.randn(2, HEADS, 7, HEAD, requires_grad=True)
    keys = torch.randn(2, HEADS, 11, HEAD, requires_grad=True)

    def work():
        out = torch.nn.functional.scaled_dot_product_attention(query, keys, keys)
        return torch.autograd.grad(out.sum(), (query, keys))

    product = 2 * 2 * HEADS * 7 * 11 * HEAD
    assert count_flops(work)[1] == (2 + 5) * product


def test_a_step_through_the_whole_row_goes_back_through_all_of_it(llama, setting, examples):
    """Frozen weights have no gradient: back costs what forward costs, and attention's two products four."""
    method = build(llama, setting, "prompt-tuning", length=3, placement="before")
    found = training_flops(llama, method, examples, [[0]], "full")
    length = 3 + 9 + 4
    once = linear(length) + head(5)
    assert found.once == 0
    assert found.step == 2 * once + 3 * attention(length, length)
    assert found.of(10) == 10 * found.step


@pytest.mark.parametrize("mode", ["cached-ram", "recompute"])
def test_a_step_on_cached_inputs_computes_the_tail_alone(llama, setting, examples, mode):
    method = build(llama, setting, "prompt-tuning", length=3, placement="after")
    found = training_flops(llama, method, examples, [[0]], mode)
    tail, keys = 1 + 3 + 4, 9 + 3 + 4  # the last input token, the prompt, what is fed back of the target
    # nothing goes back to the eight cached keys and values: two of attention's six products less
    step = 2 * (linear(tail) + head(5)) + 3 * attention(tail, keys) - attention(tail, 8)
    # without the head; eight tokens, for the ninth belongs to the tail
    prefill = linear(8) + attention(8, 8)
    if mode == "recompute":
        assert (found.once, found.step) == (0, step + prefill)
    else:
        assert (found.once, found.step) == (2 * prefill, step)
        assert found.of(3) == 2 * prefill + 3 * step


@pytest.mark.slow
def test_a_prefill_is_scaled_by_tokens_and_a_step_is_the_mean_of_batches(llama, setting, examples):
    method = build(llama, setting, "prompt-tuning", length=3, placement="after")
    many = examples * 50
    alone, twice = (training_flops(llama, method, many, b, "cached-ram") for b in ([[0]], [[0], [0, 1]]))
    assert alone.once == 100 * (linear(8) + attention(8, 8))
    both = training_flops(llama, method, many, [[0, 1]], "cached-ram")
    assert twice.step == (alone.step + both.step) / 2


def test_counting_leaves_no_gradients_and_no_changes(llama, setting, examples):
    method = build(llama, setting, "prefix-tuning", length=2)
    before = {name: p.clone() for name, p in method.named_parameters()}
    training_flops(llama, method, examples, [[0, 1]], "cached-ram")
    for name, parameter in method.named_parameters():
        assert parameter.grad is None and torch.equal(parameter, before[name])


def test_nothing_to_train_costs_nothing(llama, setting, examples):
    method = build(llama, setting, "none")
    assert training_flops(llama, method, examples, [[0]], "full").of(100) == 0
    assert artifact_bytes(llama, method) == 0


def test_parameters_and_bytes_are_those_of_the_shapes_and_of_the_file(llama, setting, tmp_path):
    method = build(llama, setting, "prefix-tuning", length=5)
    numbers = 2 * LAYERS * 2 * KV_HEADS * 5 * HEAD  # two prompts, keys and values
    assert artifact_bytes(llama, method) == 4 * numbers
    tuned = softprompt.tune(
        llama,
        "prefix-tuning",
        [{"input": f"{n} suns", "target": "yes", "prompt": ("joke", "fact")[n % 2]} for n in range(8)],
        prompt_field="prompt",
        options={"length": 5},
        output=str(tmp_path / "run"),
        **{"steps": 1, "batch_size": 4, "dtype": "float32"},
    )
    assert numbers == tuned.artifact.manifest["trained_parameters"]
    written = (tmp_path / "run" / "prompt.safetensors").stat().st_size
    assert 4 * numbers <= written < 4 * numbers + 4096


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("prompt-tuning", {"length": 3, "placement": "before"}, (3, 0)),
        ("prompt-tuning", {"length": 3, "placement": "after"}, (3, 0)),
        ("prefix-tuning", {"length": 4}, (0, 4)),
        ("llama-adapter", {"length": 6}, (0, 6)),
        ("none", {}, (0, 0)),
    ],
)
def test_soft_tokens_and_columns_are_counted_apart(llama, setting, examples, name, options, expected):
    found = added_tokens(llama, build(llama, setting, name, **options), examples)
    assert (found.soft_tokens, found.prefix_columns) == expected


def test_added_tokens_are_the_mean_of_a_mixed_batch(llama, setting, examples):
    sizes = [build(llama, setting, "prompt-tuning", length=n, placement="after") for n in (2, 6)]
    method = SideBySide(sizes)  # prompts 0 and 1 have two vectors, 2 and 3 six
    found = added_tokens(llama, method, [examples[0], replace(examples[1], prompt=2)])
    assert (found.soft_tokens, found.prefix_columns) == (4, 0)
