"""What a step keeps for its backward pass: the figure is near what autograd really saves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from softprompt import methods
from softprompt.data.collate import batch_of_ids
from softprompt.training import activation_memory
from softprompt.training.activation_memory import Shape, backward_bytes, checkpointed_bytes, largest_batch
from softprompt.training.losses import next_token


def saved(lm, method, shape: Shape, full: bool) -> int:
    """The bytes of all storages that a real batch of that shape saves, weights and the cache left out."""
    ids = [[(i + k) % 90 for k in range(shape.inputs)] for i in range(shape.rows)]
    batch = batch_of_ids(ids, [[3] * shape.targets] * shape.rows)
    context = None if full else lm.prefill(batch)
    known = [*lm.model.parameters(), *lm.model.buffers(), *method.parameters(), *method.buffers()]
    if context is not None:
        known += [t for layer in context.layers for t in (layer.key, layer.value)]
    pointers, found = {t.untyped_storage().data_ptr() for t in known}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in pointers:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss = next_token(lm, method, batch, context)
    assert loss.requires_grad
    return sum(found.values())


@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("shape", [Shape(6, 20, 2), Shape(4, 180, 3), Shape(2, 150, 60)])
def test_near_the_truth(lms, setting, family, place, shape):
    lm = lms(family)
    method = methods.build("prompt-tuning", setting(lm), {"length": 4, "placement": place})
    full = place == "before" or "cache" in lm.spec.limits
    truth = saved(lm, method, shape, full)
    assert backward_bytes(lm, method, shape, full=full) == pytest.approx(truth, rel=0.3)


def test_measuring_runs_short_rows_and_leaves_no_gradient(lms, setting, monkeypatch):
    lm, widths = lms("llama"), []
    method = methods.build("prompt-tuning", setting(lm), {"length": 4, "placement": "before"})
    original = activation_memory.next_token

    def seen(lm, method, batch, context):
        widths.append(batch.input_ids.shape)
        return original(lm, method, batch, context)

    monkeypatch.setattr(activation_memory, "next_token", seen)
    backward_bytes(lm, method, Shape(32, 5000, 7), full=True)
    assert len(widths) == 3 and all(rows == 1 and width <= 64 for rows, width in widths)
    assert all(p.grad is None for p in method.parameters())


def test_checkpointing_saves_that_much(new_lm, setting):
    lm, shape = new_lm("llama"), Shape(4, 100, 2)
    method = methods.build("prompt-tuning", setting(lm), {"length": 4, "placement": "before"})
    without = backward_bytes(lm, method, shape, full=True)
    left = checkpointed_bytes(lm, shape, without)
    inputs = 4 * 102 * 32 * 4 * 3  # of three layers, float32
    assert left == min(without, inputs + without // 3) < without


def rows(*sizes):
    return [SimpleNamespace(lengths=((n, t),)) for n, t in sizes]


def test_the_largest_batch():
    examples = rows((5, 1), (9, 2), (3, 0), (7, 4))
    assert largest_batch(examples, 2) == Shape(2, 9, 4)
    assert largest_batch(examples, 99) == Shape(4, 9, 4)
    assert largest_batch(examples, 99, batch_tokens=25) == Shape(2, 9, 2)
    assert largest_batch(examples, 99, batch_tokens=3) == Shape(1, 9, 2)
    assert largest_batch(rows((4, 0)), 8) == Shape(1, 4, 1)
