"""Steps and caches that read held weights have the losses of plain ones, and resume exactly."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tests.conftest import tiny_model

from softprompt.artifacts.artifact import MANIFEST
from softprompt.cache import InputFeatures, KeyValues, memory_store
from softprompt.config.load import recipe_from_dict
from softprompt.data.example import Example
from softprompt.data.row import row_of
from softprompt.data.template import Rendered
from softprompt.lm import held_products, held_weights
from softprompt.methods.base import Reads
from softprompt.testing.material import tiny_tokenizer
from softprompt.training.prepare import prepare
from softprompt.training.tune import Hooks, Interrupted, tune

WORDS = ["sun", "mud", "cake", "rain", "song", "ache", "gift", "loss"]
ROWS = [{"input": f"{w} {i}", "target": ("good", "bad")[i % 2]} for i, w in enumerate(WORDS * 2)]


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch):
    monkeypatch.setattr(held_weights, "LEAST", 0)
    monkeypatch.setattr(held_weights, "STEPS", 1)


@pytest.fixture
def on_intel(monkeypatch):
    def set_to(value):
        for module in (held_weights, held_products):
            monkeypatch.setattr(module, "is_intel", lambda: value)

    set_to(False)
    return set_to


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model whose float32 weights float16 holds."""
    path = tmp_path_factory.mktemp("model")
    tiny_model("llama").bfloat16().float().save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def counted(monkeypatch):
    """Count the products of held weights that pass a gradient on, and those of no gradient."""
    counts = {"gradient": 0, "plain": 0}
    make = held_products.float16_product

    def product(weight, bias):
        held = make(weight, bias)

        def call(rows):
            counts["gradient" if held_products.with_gradient.get() else "plain"] += 1
            return held(rows)

        return call

    monkeypatch.setattr(held_products, "float16_product", product)
    return counts


@pytest.fixture
def few_at_once(monkeypatch):
    """A cache in memory computes a few inputs at a time, in the steps that read them first."""
    monkeypatch.setattr(memory_store, "lazily", partial(memory_store.lazily, batch_tokens=8))


@pytest.fixture
def train(folder, tmp_path):
    def run(output, weights="auto", hooks=None, **settings):
        recipe = recipe_from_dict(
            {
                "model": str(folder),
                "data": {"train": "rows"},
                "task": "classification",
                "method": {"name": "prefix-tuning", "length": 3, "placement": "after"},
                "train": {
                    "steps": 6,
                    "batch_size": 4,
                    "eval_every": 3,
                    "dtype": "float32",
                    "weights": weights,
                    "cache_folder": str(tmp_path / "caches"),
                    **settings,
                },
                "output": str(tmp_path / output),
            }
        )
        losses = []
        given = hooks or Hooks()
        watched = Hooks(
            on_event=lambda event: losses.append(event.loss) or given.on_event(event),
            should_stop=given.should_stop,
        )
        prepared = prepare(recipe, rows=ROWS[:12], dev_rows=ROWS[12:])
        return tune(prepared, hooks=watched), losses, tmp_path / output

    return run


@pytest.mark.parametrize("cache", ["ram", "off"])
def test_losses_are_those_of_plain_weights(train, counted, on_intel, cache):
    _, plain, _ = train("plain", "float32", cache=cache)
    assert not any(counted.values())
    _, held, _ = train("held", cache=cache)
    assert counted["gradient"] > 6 * 2 * 7  # forward and backward, in every step
    assert held == pytest.approx(plain, abs=1e-5)


def test_a_step_that_computes_its_inputs_reads_held_weights_to_its_end(
    train, on_intel, few_at_once, monkeypatch
):
    product, products, counts = held_products._WithGradient.apply, [], []

    def apply(*arguments):
        products.append(arguments)
        return product(*arguments)

    monkeypatch.setattr(held_products, "_WithGradient", SimpleNamespace(apply=apply))
    train("held", hooks=Hooks(on_event=lambda event: counts.append(len(products))), cache="ram")
    assert len(counts) == 6
    steps = {after - before for before, after in itertools.pairwise([0, *counts])}
    assert len(steps) == 1 and steps != {0}


def test_in_bfloat16_steps_forward_are_the_same_to_the_bit(train, on_intel):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bfloat16 products")
    losses = [train(weights, weights, dtype="bfloat16", steps=1)[1] for weights in ("auto", "bfloat16")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("cache", ["ram", "disk", "off"])
def test_a_resumed_run_has_the_same_bytes(train, on_intel, cache, few_at_once):
    _, losses, whole = train("whole", cache=cache)
    stops = iter([False, False, False, True])
    with pytest.raises(Interrupted):
        train("stopped", hooks=Hooks(should_stop=lambda: next(stops)), cache=cache)
    run, later_losses, resumed = train("stopped", cache=cache)
    assert run.resumed_from == 3 and losses[3:] == later_losses
    for name in ("prompt.safetensors", "state.safetensors"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()


def test_a_run_that_was_resumed_with_other_weights_says_so(train, on_intel):
    stops = iter([False, False, False, True])
    with pytest.raises(Interrupted):
        train("out", hooks=Hooks(should_stop=lambda: next(stops)))
    train("out", "float32")
    text = json.dumps(json.loads((train("out", "float32")[2] / MANIFEST).read_text()))
    assert "finished" in text


@pytest.mark.parametrize("positions", [held_products.FEW, held_products.FEW + 1])
def test_on_intel_many_positions_are_multiplied_plainly(folder, on_intel, positions):
    import softprompt

    on_intel(True)
    lm = softprompt.load(str(folder), dtype="float32")
    with held_weights.for_run(lm, positions, 100) as held:
        assert held == (positions <= held_products.FEW)
    with held_weights.for_run(lm, 1, held_weights.STEPS - 1) as held:
        assert not held


def test_a_run_is_not_held_because_another_was(folder, on_intel):
    """What this process did before must not change a run's numbers."""
    import softprompt

    lm = softprompt.load(str(folder), dtype="float32")
    held_weights.hold(lm)
    layer = next(module for module in lm.model.modules() if type(module) is torch.nn.Linear)
    with held_weights.in_steps(lm):
        assert "forward" not in vars(layer)
    with held_weights.for_run(lm, 4, 100), held_weights.in_steps(lm):
        assert "forward" in vars(layer)
    assert "forward" not in vars(layer)


def test_a_step_computes_plainly_what_is_also_computed_elsewhere(folder, on_intel, counted):
    """A first run may read it where it builds a cache or scores dev rows, and a resumed one in a step."""
    import softprompt

    lm = softprompt.load(str(folder), dtype="float32")
    texts = Rendered("", "", None, None, (), row_of({}, "row"))
    rows = [Example((*range(5, 25), token), (), 0, texts, None) for token in (30, 31)]
    features, kv = InputFeatures(lm, Reads("hidden", layer=1)), KeyValues(lm, "auto", rows[0].input_ids[:16])
    with held_weights.for_run(lm, 4, 100), held_weights.in_steps(lm):
        before = dict(counted)
        features.compute(rows)
        assert kv.beginning is not None and counted == before
        kv.compute(rows)
        assert counted != before


def test_a_run_with_plain_weights_reads_no_rows_that_held_weights_computed(train, on_intel):
    """Rows on disk of held weights differ by rounding: their folder is another, which the plan names."""
    plans = [
        train(name, weights, cache="disk")[0].prepared.plan
        for name, weights in (("held", "auto"), ("plain", "float32"), ("held again", "auto"))
    ]
    folders = [plan.folder for plan in plans]
    assert folders[0] == folders[2] != folders[1]
    assert all(list(Path(folder).glob("*.safetensors")) for folder in folders)
    assert [plan.stored for plan in plans] == [False, False, True]  # known before the run, too
