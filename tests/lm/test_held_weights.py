"""Weights that are held in another form give the same answers, and are forgotten when they change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tests.conftest import tiny_model

from softprompt.data.collate import batch_of_ids
from softprompt.injection import Injection
from softprompt.lm import decoding, held_products, held_weights
from softprompt.lm.causal import CausalLM
from softprompt.lm.finetune import unfreeze
from softprompt.lm.loading import load
from softprompt.testing.material import tiny_tokenizer

ROWS = [[5, 9, 2], list(range(3, 40)), [7], [11, 12, 13, 14, 60]]
NEW = 12


def model(family="llama", dtype=torch.float32, through=None):
    tiny = tiny_model(family)
    if through is not None:
        tiny = tiny.to(through)
    lm = CausalLM(tiny.to(dtype), tiny_tokenizer(), "tiny")
    lm.is_loaded_here = True
    return lm


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch):
    monkeypatch.setattr(held_weights, "LEAST", 0)
    for module in (held_products, held_weights):  # where held weights are read at any number of rows
        monkeypatch.setattr(module, "is_intel", lambda: False)


@pytest.fixture
def used(monkeypatch):
    """Count the products of each kind."""
    counts = {"float16": 0, "onednn": 0}
    for kind in counts:
        make = getattr(held_products, f"{kind}_product")

        def counted(weight, bias, kind=kind, make=make):
            product = make(weight, bias)

            def call(rows):
                counts[kind] += 1
                return product(rows)

            return call

        monkeypatch.setattr(held_products, f"{kind}_product", counted)
    return counts


def logits(lm):
    with torch.no_grad():
        return lm.logits(batch_of_ids(ROWS, [[1, 2, 3]] * len(ROWS)))


@pytest.mark.parametrize(
    ("through", "dtype", "kind"),
    [
        (torch.bfloat16, torch.float32, "float16"),
        (torch.float16, torch.float32, "float16"),
        (None, torch.float32, "onednn"),
        (None, torch.bfloat16, "onednn"),
    ],
)
def test_logits_are_the_same(through, dtype, kind, used, close):
    lm = model("qwen3", dtype, through)
    expected = logits(lm)
    held_weights.hold(lm)
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert not isinstance(held_weights.known(lm), held_weights.HeldWeights)
        return
    tried = sum(used.values())
    with held_weights.known(lm):
        result = logits(lm)
    assert used[kind] - tried == sum(type(m) is torch.nn.Linear for m in lm.model.modules())
    close(result.float(), expected.float(), 1e-5 if dtype == torch.float32 else 1e-2)
    assert torch.equal(logits(lm), expected)  # outside, the layers are their own again
    assert not any("forward" in vars(module) for module in lm.model.modules())


def answers(lm):
    rows = [(i, decoding.joining(lm, ids, Injection(), NEW)) for i, ids in enumerate(ROWS)]
    return dict(decoding.decode(lm, rows))


def test_decoding_holds_them_after_some_steps(used, monkeypatch):
    lm = model(through=torch.bfloat16)
    expected = answers(lm)
    assert not any(used.values())  # too few steps to pay
    monkeypatch.setattr(decoding, "HELD", 2)
    assert answers(lm) == expected
    assert used["float16"] > NEW


def test_the_same_rows_are_run_in_the_same_way_at_every_call(used, monkeypatch):
    """Rounding may decide between two tokens: a resumed run must score as one that was not interrupted."""
    monkeypatch.setattr(decoding, "HELD", len(ROWS) + 3)
    lm, counts = model(through=torch.bfloat16), []
    for _ in range(2):
        before = used["float16"]
        answers(lm)
        counts.append(used["float16"] - before)
    tried = sum(type(m) is torch.nn.Linear for m in lm.model.modules())  # once, when they are made
    assert counts[0] - tried == counts[1] > 0


def test_a_gradient_takes_the_plain_layer(used):
    lm = model(through=torch.bfloat16)
    held_weights.hold(lm)
    tried, vectors = dict(used), torch.randn(1, 4, lm.spec.hidden_size, requires_grad=True)
    with held_weights.known(lm):
        lm.model(inputs_embeds=vectors).logits.sum().backward()
    assert used == tried and vectors.grad is not None and bool(vectors.grad.abs().sum() > 0)


def test_changed_weights_are_not_read_from_an_old_copy(close):
    lm = model(through=torch.bfloat16)
    held_weights.hold(lm)
    with torch.no_grad():
        lm.model.model.layers[1].mlp.up_proj.weight.mul_(2)
    expected = logits(lm)
    with held_weights.known(lm):
        assert torch.equal(logits(lm), expected)  # the old ones are left out
    held_weights.hold(lm)
    with held_weights.known(lm):
        close(logits(lm), expected)


@pytest.mark.parametrize("change", ["in place", "assigned", "converted"])
def test_changes_that_torch_does_not_count_are_seen(change, close):
    """LoRA is merged, and a model is moved, through `weight.data`, which leaves the weight's version."""
    lm = model(through=torch.bfloat16)
    held_weights.hold(lm)
    weight = lm.model.model.layers[1].mlp.up_proj.weight
    if change == "in place":
        weight.data.mul_(2)
    elif change == "assigned":
        weight.data = weight.data * 2
    else:
        lm.model.to(torch.bfloat16)
    expected = logits(lm)
    held_weights.check(lm)
    with held_weights.known(lm):
        close(logits(lm).float(), expected.float())


def test_decoding_begins_with_a_check(monkeypatch):
    monkeypatch.setattr(decoding, "HELD", 2)
    lm = model(through=torch.bfloat16)
    answers(lm)
    assert isinstance(held_weights.known(lm), held_weights.HeldWeights)
    lm.model.lm_head.weight.data.neg_()
    result = answers(lm)
    monkeypatch.setattr(decoding, "HELD", 10**9)
    assert result == answers(lm)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_quantized_weights_are_not_held(tmp_path, dtype):
    pytest.importorskip("torchao", reason="NO TEST OF QUANTIZED WEIGHTS: pip install torchao")
    tiny_model("llama").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    quantized = {"quant_method": "torchao", "quant_type": "Int8WeightOnlyConfig"}
    lm = load(str(tmp_path), quantization_config=quantized, dtype=dtype)
    held_weights.hold(lm)
    held = held_weights.known(lm)
    layers = held.layers if isinstance(held, held_weights.HeldWeights) else ()
    assert not any(type(layer.weight).__module__.startswith("torchao") for layer in layers)


@pytest.mark.parametrize("change", ["in memory", "trained", "no room", "small", "no product"])
def test_where_it_is_not_exact_or_does_not_pay_nothing_is_held(change, monkeypatch):
    lm = model(through=torch.bfloat16)
    if change == "in memory":
        lm.is_loaded_here = False
    elif change == "trained":
        lm.model.requires_grad_(True)
    elif change == "no room":
        monkeypatch.setattr(held_weights, "free_memory", lambda: 1000)
    elif change == "small":
        monkeypatch.setattr(held_weights, "LEAST", 2**40)
    else:
        monkeypatch.setattr(held_products, "float16_product", lambda weight, bias: torch.zeros_like)
    held_weights.hold(lm)
    assert not isinstance(held_weights.known(lm), held_weights.HeldWeights)


def test_a_model_that_is_not_used_any_more_is_freed():
    import gc
    import weakref

    lm = model(through=torch.bfloat16)
    held_weights.hold(lm)
    assert len(held_weights._HELD) >= 1
    gone = weakref.ref(lm.model)
    lm.close()
    del lm
    gc.collect()
    assert gone() is None


def test_a_context_that_ends_inside_another_leaves_it_as_it_is():
    lm = model()
    held_weights.hold(lm)
    layer = next(m for m in lm.model.modules() if type(m) is torch.nn.Linear)
    with held_weights.known(lm):
        with held_weights.known(lm):
            pass
        assert "forward" in vars(layer)
    assert "forward" not in vars(layer)


def test_a_context_that_ends_leaves_weights_that_were_held_since():
    lm = model()
    held_weights.hold(lm)
    earlier = held_weights.known(lm)
    with earlier:
        held_weights._HELD.clear()
    held_weights.hold(lm, gradient=True)
    layer = next(m for m in lm.model.modules() if type(m) is torch.nn.Linear)
    earlier.__enter__()
    with held_weights.known(lm):
        earlier.__exit__()
        assert "forward" in vars(layer)
    assert "forward" not in vars(layer)


def test_weights_are_forgotten_where_adapters_come():
    pytest.importorskip("peft")
    lm = model()
    held_weights.hold(lm, gradient=True)
    assert isinstance(held_weights.known(lm), held_weights.HeldWeights)
    unfreeze(lm, "lora")
    with held_weights.for_run(lm, 1, held_weights.STEPS) as held:
        assert not held
    assert not isinstance(held_weights.known(lm), held_weights.HeldWeights)


def in_a_thread(work):
    """Run something in a thread of its own, and return what it returns."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_a_pass_of_another_thread_reads_the_plain_weights(used):
    lm = model(through=torch.bfloat16)
    expected = logits(lm)
    held_weights.hold(lm)
    tried = dict(used)
    with held_weights.known(lm):
        assert torch.equal(in_a_thread(lambda: logits(lm)), expected)
        assert used == tried
        logits(lm)
    assert used != tried


def test_a_thread_that_ends_leaves_the_weights_that_another_reads(used):
    lm = model(through=torch.bfloat16)
    held_weights.hold(lm)

    def read():
        with held_weights.known(lm):
            return logits(lm)

    with held_weights.known(lm):
        expected = in_a_thread(read)
        before = dict(used)
        assert torch.equal(logits(lm), expected)
        assert used != before


def test_weights_are_held_for_a_run_while_another_thread_decodes(used):
    lm = model(through=torch.bfloat16)
    held_weights.hold(lm)

    def run():
        with held_weights.for_run(lm, 1, held_weights.STEPS) as held, held_weights.in_steps(lm):
            logits(lm)
            return held

    with held_weights.known(lm):
        assert in_a_thread(run)
        before = used["float16"]
        logits(lm)  # this thread still reads the weights that were held before
        assert used["float16"] > before
    assert not any("forward" in vars(module) for module in lm.model.modules())


@pytest.mark.parametrize(
    ("through", "dtype", "gradient", "share"),
    [
        (torch.bfloat16, torch.float32, False, 0.5),
        (torch.bfloat16, torch.float32, True, 1.0),
        (None, torch.float32, False, 1.0),
        (None, torch.float32, True, 2.0),
        (None, torch.bfloat16, False, 1.0),
        (None, torch.bfloat16, True, 1.0),
    ],
)
def test_all_copies_count_as_memory(through, dtype, gradient, share, monkeypatch):
    """A gradient's copy in float32 is transposed, and is a second one."""
    lm = model(dtype=dtype, through=through)
    layers = [module for module in lm.model.modules() if type(module) is torch.nn.Linear]
    needed = share * sum(layer.weight.numel() * layer.weight.itemsize for layer in layers)
    tried = []
    monkeypatch.setattr(held_weights, "make", lambda *of, **options: tried.append(of))
    for free, is_held in (
        (needed / held_weights.MEMORY - 8, False),
        (needed / held_weights.MEMORY + 8, True),
    ):
        tried.clear()
        monkeypatch.setattr(held_weights, "free_memory", lambda free=free: free)
        held_weights.hold(lm, gradient=gradient)
        assert bool(tried) == is_held


def test_a_forward_that_another_library_puts_in_place_stays(used):
    """accelerate wraps the forward of a layer whose weight it moves, and may do so after it was held."""
    lm = model(through=torch.bfloat16)
    held_weights.hold(lm)
    layer = next(module for module in lm.model.modules() if type(module) is torch.nn.Linear)
    plain, calls = layer.forward, []

    def wrapped(input):
        calls.append(input)
        return plain(input)

    layer.forward = wrapped
    before = dict(used)
    with held_weights.known(lm):
        logits(lm)
    assert calls and used == before and vars(layer)["forward"] is wrapped
