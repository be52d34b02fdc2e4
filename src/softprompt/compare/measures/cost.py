"""What a method costs, counted: operations (FLOPs), bytes, added tokens.

Definitions are in docs/measures-resources.md. What must be timed to be known is in `serving`.
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
    """What `work` gives, and the operations of its matrix products and attention (2 a multiply-add).

    As `torch.utils.flop_counter` counts them, and the CPU's fused attention, which it leaves out. Norms,
    activations, rotary positions and the optimizer are not counted.
    """
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        result = work()
    return result, counter.get_total_flops()


@dataclass(frozen=True, slots=True)
class TrainingFlops:
    """Operations of a run: `once` for a cache of inputs, and `step` for each step, forward and backward."""

    once: float
    step: float

    def of(self, steps: int) -> float:
        """The run's, without evaluations."""
        return self.once + steps * self.step


def training_flops(
    lm: LanguageModel,
    method: SoftPrompt,
    examples: Sequence[Example],
    batches: Sequence[Sequence[int]],
    mode: Mode,
    objective: Objective = token_losses,
) -> TrainingFlops:
    """Counted on real steps over `batches` (numbers of `examples`), in the plan's `mode`.

    `step` is their mean. Padding counts, for it is computed. A cached input is computed once: counted on up
    to 32 rows spread over the lengths, and scaled by tokens to all of `examples`. Parameters and their
    gradients stay as they are. A method without parameters takes no steps: 0.
    """
    parameters = list(named_parameters(lm, method).values())
    if not parameters:
        return TrainingFlops(0.0, 0.0)
    counts = []
    for numbers in batches:
        batch = collate([examples[i] for i in numbers], lm.device)
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
    """Tokens whose keys and values a cache holds: all but the last of each input."""
    return sum(len(e.input_ids) - 1 for e in examples)


@dataclass(frozen=True, slots=True)
class Added:
    """What a prompt adds to each input, the mean over rows."""

    soft_tokens: float  # positions that the whole model computes
    prefix_columns: float  # positions that attention reads, in the layer with the most of them


@torch.no_grad()
def added_tokens(lm: LanguageModel, method: SoftPrompt, examples: Sequence[Example]) -> Added:
    """Positions of what is injected for these rows. Columns of a prefix are counted apart: they cost less."""
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
    """Products with keys and with values: [B, heads, q, d], [B, ·, k, d], [B, ·, k, d_v]."""
    rows, heads, queries, size = query
    return 2 * rows * heads * queries * key[2] * (size + value[3])


def _attention_flops(
    query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **named: Any
) -> int:
    return _attention(query, key, value)


def _attention_backward_flops(
    grad: Any, query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **named: Any
) -> int:
    """Scores anew, then gradients of queries, keys, values and weights, as torch counts other kernels."""
    rows, heads, queries, size = query
    return 2 * rows * heads * queries * key[2] * (3 * size + 2 * value[3])


_CPU_ATTENTION: dict[Any, Any] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
