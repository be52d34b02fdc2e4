"""Measure what int8 saves in bytes of cached keys and values, and what it costs in precision.

The logits are the target's under an untrained prefix after the input, from both caches of the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

import softprompt
from softprompt.cache import Cache, InputCache, KeyValues, memory_store
from softprompt.data.collate import collate
from softprompt.data.example import Example
from softprompt.evaluation.likelihood import target_nll
from softprompt.lm.apply import injection_for
from softprompt.lm.base import LanguageModel

from .line import Line
from .options import Options
from .ours import Ours
from .rows import encoded

ROWS = 128
ALLOWED = 0.1  # nats, of a row's loss on average


def measure(options: Options) -> Iterator[Line]:
    """Measure the bytes, the change of the logits as a share of their spread, and that of the losses."""
    for dtype in options.dtypes:
        lm = softprompt.load(options.model, dtype=dtype)
        for name in options.sets:
            rows = encoded(options.data, name, ROWS, lm.tokenizer)
            kept = {form: _kept(lm, rows, form) for form in ("auto", "int8")}
            (exact, exact_nll), (rounded, nll) = (_read(lm, rows, cache) for cache in kept.values())
            size = {form: cache.contexts.bytes for form, cache in kept.items() if cache.contexts}
            moved = ((rounded - exact).square().mean() / exact.var()).sqrt().item()
            lost = (nll - exact_nll).abs().mean().item()
            same = (rounded.argmax(-1) == exact.argmax(-1)).float().mean().item()
            yield Line(
                "int8",
                f"{name}, {dtype}",
                size["int8"] / 1e6,
                size["auto"] / 1e6,
                "MB",
                size["int8"] / size["auto"],
                note=f"logits move by {moved:.1%} of their spread, a row's loss by {lost:.3f} nats, "
                f"likeliest token the same in {same:.1%}",
                wrong="" if lost <= ALLOWED else f"losses differ by {lost:.2f} nats, allowed {ALLOWED:g}",
            )


def _kept(lm: LanguageModel, rows: list[Example], form) -> InputCache:
    kv = KeyValues(lm, form)
    return InputCache(Cache(kv, memory_store.build(kv, rows), rows))


@torch.no_grad()
def _read(lm: LanguageModel, rows: list[Example], cache: InputCache) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits that predict the first target token [N, V], and the targets' losses [N]."""
    method = Ours(lm, "prefix-tuning", rows, "cached", cache).method
    firsts, losses = [], []
    for start in range(0, len(rows), 16):
        numbers = list(range(start, min(start + 16, len(rows))))
        batch = collate([rows[i] for i in numbers], lm.device)
        logits = lm.logits(batch, injection_for(lm, method, batch), cache.context(numbers))
        at = logits.shape[1] - batch.target_mask.sum(1)
        firsts.append(logits[torch.arange(len(numbers)), at].float())
        losses.append(target_nll(logits, batch))
    return torch.cat(firsts), torch.cat(losses)
