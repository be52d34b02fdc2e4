"""Contracts 5 and 7: frozen means frozen, every parameter is trained, and it learns."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace

import pytest
import torch
from tests.fit import fit

from softprompt import methods
from softprompt.evaluation.records import DevScore
from softprompt.injection import Prefix
from softprompt.lm.apply import injection_for
from softprompt.training.learner import Optimization
from softprompt.training.losses import next_token

# gradients below this share of the largest are rounding: the parameter has no effect
ROUNDING = 1e-6


def weights(lm) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(lm.model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def train(lm, method, loss_of, rows: int, **how):
    """Without dev rows: the newest state counts as the best."""
    ever_better = itertools.count()
    score = lambda: DevScore((float(next(ever_better)),), "none", 0.0)  # noqa: E731
    return fit(lm, method, loss_of, [1] * rows, score, Optimization(**how))


def test_base_is_untouched_and_every_parameter_trained(lm, family, case, method, batch):
    before, start = weights(lm), {n: p.detach().clone() for n, p in method.state_dict().items()}
    gradients: dict[str, float] = {}

    def loss_of(rows):
        return next_token(lm, method, batch)

    loss_of([]).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        gradients[name] = parameter.grad.abs().max().item()
    dead = [name for name, size in gradients.items() if size <= ROUNDING * max(gradients.values())]
    assert not dead, f"no gradient reaches {dead}"

    train(lm, method, loss_of, batch.size, steps=3, lr=1e-2, batch_size=4)
    assert weights(lm) == before
    assert all(p.grad is None and not p.requires_grad for p in lm.model.parameters())
    trained = {name for name, _ in method.named_parameters()}
    for name, now in method.state_dict().items():
        assert torch.equal(now, start[name]) == (name not in trained), name


def test_fresh_method_lets_gradient_into_something(lm, case, build, batch):
    """As users get it, with zero-initialised gates and layers: the first step must move the output."""
    method = build(lm, case, perturbed=False)
    before = lm.logits(batch, injection_for(lm, method, batch))
    train(lm, method, lambda rows: next_token(lm, method, batch), 4, steps=2, lr=1e-2, batch_size=4)
    after = lm.logits(batch, injection_for(lm, method, batch))
    assert (after - before)[batch.target_mask].abs().max() > 1e-4


def test_options_do_what_they_say(llama, build, case):
    """Frozen parts are no parameters; channels follow the placement."""
    method, options = build(llama, case), case.options
    trained = {name for name, _ in method.named_parameters()}
    if options.get("values_only"):
        assert trained == {"values"}
    if options.get("freeze_first"):
        assert method.first_keys.shape[1] == 1 and method.keys.shape[1] == options["length"] - 1
    ids = torch.tensor([0, 1, 1])
    injection = method.static(ids)
    (channel, part), *others = injection.channels().items()
    assert not others
    kind = "kv" if isinstance(part, Prefix) else "soft"
    placement = {"before": "before", "kv_before": "before", "after": "after", "kv_after": "after"}
    assert placement.get(channel) == options.get("placement")
    assert part.mask.shape == (3, options["length"]) and bool(part.mask.all())
    if kind == "soft":
        assert part.vectors.shape == (3, options["length"], llama.spec.hidden_size)
    else:
        assert len(part.layers) == len(llama.spec.layers)


def test_generated_prompts_read_their_input(llama, build, case, rows_to_batch):
    method = build(llama, case)
    if method.reads is None:
        return
    batch = rows_to_batch([[5, 6, 7], [50, 60, 70, 80]], [[1], [1]], [0, 0])
    part = next(iter(injection_for(llama, method, batch).channels().values()))
    vectors = part.vectors if hasattr(part, "vectors") else part.layers[0].value
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3


@pytest.mark.slow
def test_it_learns(llama, case, build, rows_to_batch):
    """Eight rows of four classes are distinguished by their inputs: the loss ends below chance."""
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randint(96, (8, 6), generator=generator).tolist()
    batch = rows_to_batch(inputs, [[10 + i % 4] for i in range(8)])
    case = replace(case, options={**case.options, "length": 8})
    method = build(llama, case, perturbed=False)
    losses = []

    def loss_of(rows):
        losses.append(next_token(llama, method, batch))
        return losses[-1]

    lr = 4 * methods.find(case.method).lr  # tiny random models need, and bear, longer steps than real ones
    train(llama, method, loss_of, 8, steps=200, lr=lr, batch_size=8, schedule="linear")
    with torch.no_grad():
        final = next_token(llama, method, batch)
        answers = llama.logits(batch, injection_for(llama, method, batch))[:, -1].argmax(-1)
    assert answers.tolist() == batch.target_ids[:, 0].tolist()
    # naming the classes without reading gives log 4 = 1.39
    assert final < 1.0 and final < 0.2 * losses[0]


def test_it_learns_prompts_apart(llama, build, all_cases, rows_to_batch):
    """One run learns two prompts: the same inputs, another answer under each."""
    case = next(c for c in all_cases if c.id == "prompt-tuning-after")
    method = build(llama, case, perturbed=False)
    inputs = [[7, 8, 9], [30, 31]] * 2
    batch = rows_to_batch(inputs, [[20], [20], [90], [90]], [0, 0, 1, 1])
    train(llama, method, lambda rows: next_token(llama, method, batch), 4, steps=60, lr=0.1, batch_size=4)
    answers = llama.logits(batch, injection_for(llama, method, batch))[:, -1].argmax(-1)
    assert answers.tolist() == [20, 20, 90, 90]


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_trained_base_has_gradients_and_frozen_parts_stay(new_lm, mode, build, all_cases, batch):
    """base=lora and base=full train what they name; under lora the base's own weights stay."""
    from softprompt.lm import finetune

    lm = new_lm("llama")
    before = {name: p.detach().clone() for name, p in lm.model.named_parameters()}
    method = build(lm, next(c for c in all_cases if c.id == "prefix-tuning-after"))
    finetune.unfreeze(lm, mode, rank=2)
    trained = finetune.trained_weights(lm)
    how = {"steps": 3, "lr": 1e-2, "base_lr": 1e-2, "batch_size": 4}
    train(lm, method, lambda rows: next_token(lm, method, batch), 4, **how)
    assert trained and all(p.grad is not None for p in trained.values())
    now = {name.replace("base_layer.", ""): p for name, p in lm.model.named_parameters()}
    changed = {name for name, old in before.items() if not torch.equal(old, now[name])}
    assert changed == (set() if mode == "lora" else set(before))
