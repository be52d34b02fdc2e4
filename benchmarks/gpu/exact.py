"""Check that numbers on the device are those of the processor in float32, for tiny models of two families.

The reference has the same weights: for bfloat16 those that were rounded to it. In float32 a number may differ
by rounding. In bfloat16 the processor's own numbers differ too, and those of the device may by three times as
much.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import softprompt
from benchmarks.training.line import Line
from softprompt import methods
from softprompt.data.collate import Batch
from softprompt.lm.apply import injection_for
from softprompt.lm.families import tiny
from softprompt.methods.base import SoftPrompt
from softprompt.testing import material
from softprompt.testing.material import difference

from .piece import Subject

FAMILIES = ("llama", "gpt2")
ATTENTION = ("sdpa", "eager", "flash")
#: A prefix ahead of the input, one after it, and soft tokens: each with two prompts, row by row.
CASES = (("prefix-tuning", "before"), ("prefix-tuning", "after"), ("prompt-tuning", "before"))
ROUNDING = {"logits": 1e-4, "a row alone": 1e-5, "a cached input": 1e-5, "the gradient": 1e-3}  # in float32
#: In bfloat16: times what the processor's own bfloat16 differs by, and what is allowed in any case.
TIMES, LEAST = 3.0, 0.03
NEW = 5  # tokens that are generated


def float32(subject: Subject) -> Iterator[Line]:
    """Check both families in float32."""
    yield from _checked(subject, "float32")


def bfloat16(subject: Subject) -> Iterator[Line]:
    """Check both families in bfloat16."""
    yield from _checked(subject, "bfloat16")


def _checked(subject: Subject, dtype: str) -> Iterator[Line]:
    for family in FAMILIES[:1] if subject.short else FAMILIES:
        weights = tiny(family).to(getattr(torch, dtype))
        reference = softprompt.load(copy.deepcopy(weights).float(), material.tiny_tokenizer())
        allowed = ROUNDING
        if dtype != "float32":
            there = softprompt.load(copy.deepcopy(weights), material.tiny_tokenizer())
            allowed = {kind: max(LEAST, TIMES * value) for kind, value in _worst(there, reference).items()}
        for attention in ATTENTION:
            if attention == "flash" and dtype == "float32" and subject.device != "cpu":
                continue  # its kernels compute in 16 bits on a GPU
            model = copy.deepcopy(weights).to(subject.device)
            lm = softprompt.load(model, material.tiny_tokenizer(), attn_implementation=attention)
            yield _line(f"{family}, {dtype}, {attention}", _worst(lm, reference), allowed)


def _line(case: str, worst: dict[str, float], allowed: dict[str, float]) -> Line:
    """Format the differences of a model; the largest share of what is allowed decides."""
    wrong = [
        f"{kind} differ by {value:.1e}, allowed {allowed[kind]:.1e}"
        for kind, value in worst.items()
        if not value <= allowed[kind]
    ]
    share = max(value / allowed[kind] for kind, value in worst.items())
    note = "differences: " + ", ".join(f"{kind} {value:.0e}" for kind, value in worst.items())
    return Line("exact", case, share, 1.0, "of what is allowed", note=note, wrong="; ".join(wrong))


def _worst(lm: Any, reference: Any) -> dict[str, float]:
    """Return the largest difference of each kind over all cases; in float32 tokens must be the same, too."""
    batch, worst = material.batch(), dict.fromkeys(ROUNDING, 0.0)
    for name, placement in CASES:
        method = methods.build(name, material.setting(reference), {"length": 4, "placement": placement})
        method = material.perturbed(method, 0.1)
        for kind, value in _differences(lm, reference, method, batch).items():
            worst[kind] = max(worst[kind], value)
        if lm.dtype == torch.float32 and _other_tokens(lm, reference, method, batch):
            worst["logits"] = float("inf")
    return worst


def _differences(lm: Any, reference: Any, method: SoftPrompt, batch: Batch) -> dict[str, float]:
    """Return the differences of one method, as shares of the largest number."""
    here, there = method, copy.deepcopy(method).to(lm.device)
    on_device = batch.to(lm.device)
    expected = reference.logits(batch, injection_for(reference, here, batch))
    injection = injection_for(lm, there, on_device)
    logits = lm.logits(on_device, injection)
    with torch.no_grad():
        cached = lm.logits(on_device, injection, lm.prefill(on_device, injection))
        alone = max(_alone(lm, there, batch, i, logits) for i in range(batch.size))
    return {
        "logits": _apart(logits, expected, batch),
        "a row alone": alone,
        "a cached input": _apart(cached, logits.cpu(), batch),
        "the gradient": max(
            map(_share, _gradients(logits, on_device, there), _gradients(expected, batch, here))
        ),
    }


def _alone(lm: Any, method: SoftPrompt, batch: Batch, index: int, together: Tensor) -> float:
    single = material.row_of(batch, index).to(lm.device)
    logits = lm.logits(single, injection_for(lm, method, single))[0].float()
    return difference(together[index].float()[batch.target_mask[index].to(lm.device)], logits)


def _gradients(logits: Tensor, batch: Batch, method: SoftPrompt) -> list[Tensor]:
    loss = logits.float()[batch.target_mask].square().mean()
    return [g.float().cpu() for g in torch.autograd.grad(loss, [*method.parameters()], retain_graph=True)]


def _share(result: Tensor, expected: Tensor) -> float:
    return ((result - expected).abs().max() / expected.abs().max().clamp(min=1e-9)).item()


def _apart(result: Tensor, expected: Tensor, batch: Batch) -> float:
    return difference(
        result.detach().float().cpu()[batch.target_mask], expected.detach().float()[batch.target_mask]
    )


def _other_tokens(lm: Any, reference: Any, method: SoftPrompt, batch: Batch) -> int:
    """Count the rows that are answered with other tokens."""
    there, on_device = copy.deepcopy(method).to(lm.device), batch.to(lm.device)
    options = {"max_new_tokens": NEW, "do_sample": False}
    with torch.no_grad():
        expected = reference.generate(batch, injection_for(reference, method, batch), **options).tolist()
        tokens = lm.generate(on_device, injection_for(lm, there, on_device), **options).tolist()
    return sum(a != b for a, b in zip(tokens, expected, strict=True))
