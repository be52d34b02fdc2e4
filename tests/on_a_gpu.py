"""No tensor stays on the CPU where the model is elsewhere: training, evaluation, generation and serving.

`test_on_a_gpu.py` runs these tests. The GPU is a pretended one, so this says nothing of the kernels and of
the speed of a real one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.gpu.graphs import FixedStep
from benchmarks.training import ours as training
from benchmarks.training.ours import Ours
from benchmarks.training.rows import example
from tests.pretend_gpu import DEVICE, READ, SENT, to_device

import softprompt
from softprompt.cache import Cache, KeyValues
from softprompt.cache.memory_store import build
from softprompt.lm.families import tiny
from softprompt.methods import METHODS
from softprompt.serve.engine import Engine
from softprompt.serve.registry import Registry
from softprompt.serve.request import Finished, Request, Sampling
from softprompt.testing.material import tiny_tokenizer

pytestmark = pytest.mark.whole

ROWS = [
    {"input": f"word {i} is {'long' if i % 3 else 'short and'}", "target": "ab" if i % 2 else "no"}
    for i in range(6)
]
LABELS = {"kind": "classification"}
TRAINED = [name for name in METHODS if name != "none"]
#: How a run may be made, beside its method: each is `tune`'s arguments.
KINDS: dict[str, dict[str, Any]] = {
    "recomputed inputs": {"cache": "off"},
    "a cache on disk": {"cache": "disk"},
    "a cache in int8": {"cache_dtype": "int8"},
    "layers computed again": {"gradient_checkpointing": True},
    "LoRA beside it": {"base": "lora", "placement": "before"},
    "a fitted start": {"init": "matched", "text": "a word is long and short", "placement": "before"},
}


def on_device() -> Any:
    return to_device(tiny("llama", max_position_embeddings=512, num_hidden_layers=2))


@pytest.fixture(scope="module")
def lm() -> Any:
    return softprompt.load(on_device(), tiny_tokenizer())


def tune(lm: Any, method: str, folder: Path, **options: Any) -> Any:
    size = {"length": 4} if "length" in METHODS[method].options() else {}
    settings = {"task": LABELS, "steps": 1, **size, **options}
    return softprompt.tune(lm, method, ROWS, output=str(folder), **settings)


def test_the_pretended_device_tells_tensors_apart():
    there, here = torch.arange(6, device=DEVICE).view(2, 3), torch.ones(2, 3)
    assert (
        torch.arange(1, 4, device=DEVICE).tolist() == [1, 2, 3]
        and torch.full((2,), 3, device=DEVICE).sum() == 6
    )
    assert there.device == DEVICE and (there + 1).sum().item() == 21 and there[:, 1].tolist() == [1, 4]
    assert (there * torch.tensor(2)).device == DEVICE  # a single number may be on the CPU
    for mistake in (lambda: there + here, lambda: here[there[0, :2]], lambda: there.numpy()):
        with pytest.raises((RuntimeError, TypeError), match=r"cpu|numpy"):
            mistake()
    assert torch.equal(there.to("cpu") + here, torch.arange(6).view(2, 3) + 1)


@pytest.mark.parametrize("method", TRAINED)
def test_every_method_is_trained(method, lm, tmp_path):
    tuned = tune(lm, method, tmp_path)
    assert {p.device for p in tuned.method.parameters()} == {DEVICE}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run(kind, tmp_path):
    model = softprompt.load(on_device(), tiny_tokenizer())
    tuned = tune(model, "prefix-tuning", tmp_path, **{"placement": "after", **KINDS[kind]})
    assert tuned.generate("word 1") in ("ab", "no")


def test_cached_rows_stay_on_the_device(lm):
    """Rows of several lengths are joined there: nothing is read back, beside what `tolist` reads."""
    rows = [example(range(3, 3 + n), [5]) for n in (4, 9, 6)]
    for form in ("auto", "int8"):
        kept = KeyValues(lm, form)
        cache = Cache(kept, build(kept, rows), rows)
        READ.clear()
        context = cache.batch([0, 1, 2])
        assert context.mask.device == DEVICE and context.layers[0].key.device == DEVICE
        assert READ == []
    context.mask.to("cpu")
    assert READ == [24]  # what is read back would be seen


def test_a_step_of_fixed_shape_copies_nothing_between_the_devices(lm):
    """A graph of it can be captured: a copy from the CPU's memory would make the capture fail."""
    rows = [example(range(3, 9), [5 + i]) for i in range(3)]
    fixed = FixedStep(Ours(lm, "prefix-tuning", rows, "cached", training.kept(lm, rows)), [0, 1, 2])
    for copies in (READ, SENT):
        copies.clear()
    loss, *gradients = fixed.step()
    assert loss.device == DEVICE and gradients
    assert READ == [] and SENT == []
    torch.ones(3).to(DEVICE)
    assert SENT == [3]  # what is sent would be seen


def test_prompts_are_served(lm, tmp_path):
    for name, method in (
        ("soft", "prompt-tuning"),
        ("prefix", "prefix-tuning"),
        ("reads", "generated-prefix"),
    ):
        tune(lm, method, tmp_path / name)
    engine = Engine(lm, Registry(tmp_path, lm))
    engine.start()
    try:
        sampling = Sampling(max_tokens=4, ignore_eos=True)
        answers = [
            engine.submit(Request(n, (5, 6, 7, 8), sampling)) for n in ("soft", "prefix", "reads", None)
        ]
        ends = [[*answer][-1] for answer in answers]
    finally:
        engine.stop()
    assert [(end.error, end.output_tokens) for end in ends if isinstance(end, Finished)] == [(None, 4)] * 4


def test_a_loop_of_ones_own():
    model = softprompt.attach(on_device(), tiny_tokenizer(), "prefix-tuning")
    ids = torch.tensor([[5, 6, 7, 8], [3, 9, 1, 2]], device=DEVICE)
    labels = torch.tensor([[-100, -100, 7, 8], [-100, 9, 1, 2]], device=DEVICE)
    model(input_ids=ids, labels=labels).loss.backward()
    assert all(p.grad.device == DEVICE for p in model.soft_prompt.parameters())
    assert model.generate(ids, max_new_tokens=3).shape == (2, 7)
