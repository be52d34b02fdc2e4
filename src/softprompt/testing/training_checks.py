"""These contracts are of training: what is trained, what stays as it was, and that the loss falls."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import methods
from ..data.collate import Batch
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..methods.base import SoftPrompt
from .broken import ContractBroken
from .material import PROMPTS, MethodOnModel, injection_of, rows_with, tiny_lm, weights_of

DEAD = 1e-6  # gradients below this share of the largest are rounding


def base_stays_as_it_was(subject: MethodOnModel) -> None:
    """Check that building the method and calling it change nothing on the base: weights, modes, gradients."""
    before = weights_of(subject.lm)
    injection_of(subject, subject.build())
    _compare_base(subject, before)


def prompts_are_independent(subject: MethodOnModel) -> None:
    """Check that rows of one prompt give no gradient to the numbers that another prompt has alone."""
    single = subject.build(prompts=PROMPTS[:1]).state_dict()
    method = subject.method
    method.zero_grad(set_to_none=True)
    rows = rows_with([[5, 17, 80], [42, 3]], [0, 0])
    loss_of(subject.lm, method, rows).backward()
    for name, parameter in method.named_parameters():
        axes = [i for i, n in enumerate(single[name].shape) if n != parameter.shape[i]]
        if len(axes) != 1 or parameter.grad is None:
            continue
        if parameter.grad.select(axes[0], 1).abs().max() > 0:
            raise ContractBroken(
                f"rows of prompt '{PROMPTS[0]}' give a gradient to the numbers of '{PROMPTS[1]}' in '{name}'",
                "use only the rows prompt_ids of a table in forward",
            )


def gradients_reach_the_method_alone(subject: MethodOnModel) -> None:
    """Check that every parameter of the method gets a gradient, and that training leaves the base alone."""
    lm, before = subject.lm, weights_of(subject.lm)
    method = subject.method
    method.zero_grad(set_to_none=True)
    loss_of(lm, method, subject.batch).backward()
    sizes = {
        n: p.grad.abs().max().item() if p.grad is not None else 0.0 for n, p in method.named_parameters()
    }
    if not sizes:
        raise ContractBroken("it has no parameters", "keep what is trained as torch.nn.Parameter")
    if dead := [name for name, size in sizes.items() if not size > DEAD * max(sizes.values())]:
        raise ContractBroken(
            f"no gradient reaches {', '.join(dead)}",
            "use the parameter in forward without detach(), or keep it as a buffer (register_buffer)",
        )
    buffers = {name: tensor.clone() for name, tensor in method.named_buffers()}
    train(lm, subject.build(), subject.batch, steps=2, lr=1e-2)
    _compare_base(subject, before)
    if any(not torch.equal(tensor, buffers[name]) for name, tensor in method.named_buffers()):
        raise ContractBroken("a buffer changes in forward", "keep state out of forward")


def bfloat16_base(subject: MethodOnModel) -> None:
    """Check that it runs on a base in bfloat16, and that its own numbers stay float32."""
    lm = tiny_lm(subject.lm.name.removeprefix("tiny-"), torch.bfloat16)
    method = MethodOnModel(subject.name, subject.options, lm, subject.folder).build()
    kinds = {str(p.dtype) for p in method.parameters()}
    if kinds != {"torch.float32"}:
        raise ContractBroken(
            f"parameters on a bfloat16 base are {', '.join(sorted(kinds))}",
            "call .float() on what comes from the base: small steps are lost in bfloat16",
        )
    with torch.no_grad():
        logits = lm.logits(subject.batch, injection_for(lm, method, subject.batch))
    if not logits.isfinite().all():
        raise ContractBroken("logits on a bfloat16 base are not finite", "compute in float32")


def learns(subject: MethodOnModel) -> None:
    """Check that it fits four rows at its own learning rate."""
    method = subject.build()
    losses = train(subject.lm, method, subject.batch, steps=40, lr=methods.find(subject.name).lr)
    if not losses[-1] < losses[0] - 0.02:
        raise ContractBroken(
            f"after 40 steps at lr={methods.find(subject.name).lr:g} the loss of 4 rows went from "
            f"{losses[0]:.3f} to {losses[-1]:.3f}",
            "choose another `lr`, and look at the scale of the initial vectors (methods.init)",
        )


def loss_of(lm: LanguageModel, method: SoftPrompt, rows: Batch) -> Tensor:
    """Return the mean cross entropy of the targets' tokens."""
    logits = lm.logits(rows, injection_for(lm, method, rows))
    return torch.nn.functional.cross_entropy(logits[rows.target_mask], rows.target_ids[rows.target_mask])


def train(lm: LanguageModel, method: SoftPrompt, rows: Batch, *, steps: int, lr: float) -> list[float]:
    """Take steps of AdamW on one batch; return the loss ahead of each step, and the last."""
    optimizer, losses = torch.optim.AdamW(method.parameters(), lr=lr, weight_decay=0.0), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(lm, method, rows)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        return [*losses, loss_of(lm, method, rows).item()]


def _compare_base(subject: MethodOnModel, before: str) -> None:
    lm = subject.lm
    if weights_of(lm) != before or any(p.grad is not None for p in lm.model.parameters()):
        raise ContractBroken(
            "the base model is not as it was",
            "only read the base, through setting.lm; its weights are frozen, and other prompts share them",
        )
