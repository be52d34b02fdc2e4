"""Counts what a method costs: operations (FLOPs) and added tokens.

Definitions are in docs/measures-resources.md. Costs that must be timed are in `latency`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ...cache.plan import Mode
from ...data.collate import Batch, collate
from ...data.example import Example
from ...injection import SoftTokens
from ...lm.apply import injection_for
from ...lm.base import LanguageModel
from ...lm.context import Context
from ...methods.base import SoftPrompt
from ...training.losses import Objective, token_losses
from ...training.trained import named_parameters

Result = TypeVar("Result")
PREFILLED = 32  # rows whose prefill is counted, for all


def count_flops(work: Callable[[], Result]) -> tuple[Result, int]:
    """Return the result of `work`, and the operations of its products and attention (2 a multiply-add).

    They are those that `torch.utils.flop_counter` counts, and the CPU's fused attention, which it omits.
    Norms, activations, rotary positions and the optimizer are not counted.
    """
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        result = work()
    return result, counter.get_total_flops()


@dataclass(frozen=True, slots=True)
class TrainingFlops:
    """The operations that a run takes: `once` for a cache of inputs, and `step` for each step."""

    once: float
    step: float

    def of(self, steps: int) -> float:
        """Return the operations of a run of so many steps, without evaluations."""
        return self.once + steps * self.step


def training_flops(
    lm: LanguageModel,
    method: SoftPrompt,
    examples: Sequence[Example],
    batches: Sequence[Sequence[int]],
    mode: Mode,
    objective: Objective = token_losses,
) -> TrainingFlops:
    """Count the operations of real steps over `batches` (indices into `examples`), in the plan's `mode`.

    `step` is their mean, forward and backward. Padding counts, since it is computed. A cached input is
    computed once: it is counted on up to 32 rows of all lengths, and scaled by tokens to all of `examples`.
    Parameters and their gradients do not change. A method without parameters takes no steps: 0.
    """
    parameters = list(named_parameters(lm, method).values())
    if not parameters:
        return TrainingFlops(0.0, 0.0)
    counts = []
    for numbers in batches:
        batch = collate([side for i in numbers for side in examples[i].sides()], lm.device)
        context = lm.prefill(batch) if mode.startswith("cached") else None
        counts.append(
            count_flops(lambda b=batch, c=context: _step(lm, method, b, c, mode, objective, parameters))[1]
        )
    once = _prefill_flops(lm, examples) if mode.startswith("cached") else 0.0
    return TrainingFlops(once, sum(counts) / len(counts))


def _step(
    lm: LanguageModel,
    method: SoftPrompt,
    batch: Batch,
    context: Context | None,
    mode: Mode,
    objective: Objective,
    parameters: Sequence[Tensor],
) -> None:
    if mode == "recompute":
        context = lm.prefill(batch)
    loss = objective(lm, method, batch, context).mean()
    # not backward(): that would leave gradients behind
    torch.autograd.grad(loss, parameters, allow_unused=True)


def _prefill_flops(lm: LanguageModel, examples: Sequence[Example]) -> float:
    ordered = sorted(examples, key=lambda e: len(e.input_ids))
    take = min(PREFILLED, len(ordered))
    chosen = [ordered[(2 * i + 1) * len(ordered) // (2 * take)] for i in range(take)]
    counted = sum(count_flops(lambda e=e: lm.prefill(collate([e], lm.device)))[1] for e in chosen)
    return counted * _tokens(examples) / max(1, _tokens(chosen))


def _tokens(examples: Sequence[Example]) -> int:
    """Count the tokens whose keys and values a cache holds: all but the last of each input."""
    return sum(len(e.input_ids) - 1 for e in examples)


@dataclass(frozen=True, slots=True)
class Added:
    """Positions that a prompt adds to each input, as means over rows."""

    soft_tokens: float  # positions that the whole model computes
    prefix_columns: float  # positions that attention reads, in the layer with the most of them


@torch.no_grad()
def added_tokens(lm: LanguageModel, method: SoftPrompt, examples: Sequence[Example]) -> Added:
    """Count the positions that are injected for these rows; a prefix's columns cost less and are separate."""
    batch = collate(examples, lm.device, targets=False)
    soft, columns = 0.0, 0.0
    for part in injection_for(lm, method, batch).channels().values():
        mean = part.mask.sum(1).double().mean().item()
        if isinstance(part, SoftTokens):
            soft += mean
        else:
            columns += mean
    return Added(soft, columns)


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> int:
    """Count products with keys and with values: [B, heads, q, d], [B, ·, k, d], [B, ·, k, d_v]."""
    rows, heads, queries, size = query
    return 2 * rows * heads * queries * key[2] * (size + value[3])


def _attention_flops(
    query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **named: Any
) -> int:
    return _attention(query, key, value)


def _attention_backward_flops(
    grad: Any, query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **named: Any
) -> int:
    """Count recomputed scores and the gradients of queries, keys, values and weights, as torch does."""
    rows, heads, queries, size = query
    return 2 * rows * heads * queries * key[2] * (3 * size + 2 * value[3])


_CPU_ATTENTION: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
