"""The freeze-aware plan: what is a constant is computed once.

Under a causal model nothing ahead of the first trained vector depends on it. Where everything
trained stands after the input, the input's keys and values are kept, and a step runs only
[last input token | prompt | target]. The plan decides that before a step is run, from what the
method injects (not from its name), the rows' lengths and a memory budget, and can print itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .data.collate import collate
from .data.encode import Example
from .injection import Injection, LayerKV
from .lm.base import LanguageModel
from .lm.context import Context

Mode = Literal["cached-ram", "recompute", "full"]
BUDGET_SHARE = 0.4  # of the memory that is free, where the user names no budget


@dataclass(frozen=True, slots=True)
class Plan:
    """How a step is computed, what it costs, and why. `str(plan)` is what `softprompt check` prints."""

    mode: Mode
    reason: str
    step_tokens: int  # positions that go through the model with gradient, a step of mean length
    prefill_tokens: int  # positions computed once (cached-ram) or every step (recompute)
    cache_bytes: int  # of the inputs' keys and values, were they all kept
    budget_bytes: int

    def __str__(self) -> str:
        lines = [f"plan: {self.mode}", f"  why: {self.reason}", f"  tokens a step: {self.step_tokens:,}"]
        if self.mode == "cached-ram":
            lines.append(f"  cached once: {self.prefill_tokens:,} tokens, {_size(self.cache_bytes)}")
        if self.mode == "recompute":
            lines.append(f"  input tokens a step, without gradient: {self.prefill_tokens:,}")
        lines.append(f"  memory budget of the cache: {_size(self.budget_bytes)}")
        return "\n".join(lines)


def decide(
    lm: LanguageModel,
    injection: Injection,
    examples: Sequence[Example],
    batch_size: int,
    *,
    cache: Literal["auto", "ram", "off"] = "auto",
    budget_bytes: int | None = None,
) -> Plan:
    """The cheapest mode that gives the same logits. `injection` is a sample of what the method makes."""
    budget = default_budget() if budget_bytes is None else budget_bytes
    inputs = sum(len(e.input_ids) - 1 for e in examples)
    rows = max(1, len(examples))
    targets = sum(max(len(e.target_ids), 1) for e in examples)
    channels = injection.channels()
    soft_after = 0 if injection.after is None else injection.after.mask.shape[1]
    soft_before = 0 if injection.before is None else injection.before.mask.shape[1]
    needed = inputs * lm.spec.kv_numbers_per_token * lm.dtype.itemsize
    tail = round(batch_size * (targets / rows + soft_after))
    whole = round(batch_size * ((inputs + targets) / rows + soft_after + soft_before))
    ahead = [name for name in channels if name not in ("after", "kv_after")]

    def plan(mode: Mode, reason: str) -> Plan:
        once = {"cached-ram": inputs, "recompute": round(batch_size * inputs / rows), "full": 0}[mode]
        return Plan(mode, reason, whole if mode == "full" else tail, once, needed, budget)

    if not lm.is_frozen:
        return plan("full", "the base model is trained too, so no key or value is a constant")
    if "cache" in lm.spec.limits:
        return plan("full", f"this model cannot keep its inputs' keys and values: {lm.spec.limits['cache']}")
    if ahead:
        return plan(
            "full",
            f"the trained vectors ({', '.join(ahead)}) stand ahead of the input, which depends on them",
        )
    if cache == "off":
        return plan("recompute", "train.cache=off; the input runs without gradient each step")
    if needed > budget:
        return plan("recompute", f"the inputs' KV would take {_size(needed)}, more than the budget")
    return plan(
        "cached-ram", "nothing trained stands ahead of or inside the input, and its KV fits in memory"
    )


def default_budget() -> int:
    """Bytes the cache may take: a share of the memory that is free now."""
    import psutil

    return int(BUDGET_SHARE * psutil.virtual_memory().available)


class ContextCache:
    """The inputs' keys and values in memory, a row each, in the model's own precision."""

    def __init__(self, rows: list[list[Tensor]]) -> None:
        self._rows = rows  # per row: one [groups…] tensor a layer group, see `_pack`

    @property
    def bytes(self) -> int:
        """Memory it holds."""
        return sum(t.numel() * t.element_size() for row in self._rows for t in row)

    def __len__(self) -> int:
        return len(self._rows)

    def context(self, indices: Sequence[int], lm: LanguageModel) -> Context:
        """The context of a batch of rows, right-aligned."""
        rows = [self._rows[i] for i in indices]
        lengths = [row[0].shape[-2] for row in rows]
        width = max(lengths)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for i, n in enumerate(lengths):
            mask[i, width - n :] = True
        packed = []
        for part in range(len(rows[0])):
            like = rows[0][part]
            out = like.new_zeros(*like.shape[:-3], len(rows), like.shape[-3], width, like.shape[-1])
            for i, (row, n) in enumerate(zip(rows, lengths, strict=True)):
                out[..., i, :, width - n :, :] = row[part]
            packed.append(out)
        return Context(_unpack(packed, lm), mask.to(lm.device))


def build_cache(
    lm: LanguageModel,
    examples: Sequence[Example],
    *,
    batch_tokens: int = 2048,
    progress: Callable[[int, int], None] | None = None,
) -> ContextCache:
    """Runs every input once through the plain model. `progress(done, total)` counts rows."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].input_ids))
    rows: list[list[Tensor]] = [[] for _ in examples]
    done = 0
    for chunk in _chunks_by_tokens(order, examples, batch_tokens):
        batch = collate([examples[i] for i in chunk], lm.device, targets=False)
        context = lm.prefill(batch)
        for position, index in enumerate(chunk):
            rows[index] = _pack(context, position, int(context.mask[position].sum()))
        done += len(chunk)
        if progress:
            progress(done, len(examples))
    return ContextCache(rows)


def _chunks_by_tokens(order: Sequence[int], examples: Sequence[Example], limit: int):
    chunk: list[int] = []
    for index in order:
        # sorted by length, so the newest row is the longest
        if chunk and (len(chunk) + 1) * len(examples[index].input_ids) > limit:
            yield chunk
            chunk = []
        chunk.append(index)
    if chunk:
        yield chunk


def _pack(context: Context, position: int, length: int) -> list[Tensor]:
    """One row's real columns: one [2 · layers, heads, n, d] tensor where layers are alike, else a list."""
    parts = []
    for layer in context.layers:
        if layer is not None:
            width = layer.key.shape[2]
            parts += [t[position, :, width - length :] for t in (layer.key, layer.value)]
    if len({part.shape for part in parts}) == 1:
        return [torch.stack(parts)]
    return [part.clone() for part in parts]


def _unpack(packed: list[Tensor], lm: LanguageModel) -> tuple[LayerKV | None, ...]:
    flat = list(packed[0].unbind(0)) if len(packed) == 1 and packed[0].dim() == 5 else packed
    tensors = iter(flat)
    return tuple(LayerKV(next(tensors), next(tensors)) for _ in lm.spec.layers)


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
