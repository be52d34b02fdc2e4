"""A compiled prompt is compared with the model itself before it is written.

An engine's work is repeated here naively: a cache is filled, and the input continues from it. This refuses
what no other check foresaw.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache

from ....data.collate import batch_of_ids
from ....errors import SoftPromptError
from ....injection import Injection
from ....lm.base import LanguageModel
from ....lm.cache_name import CACHE
from .kv import CompiledKV

TOKENS = 8
#: Largest difference of log-probabilities; in bfloat16, moved keys are rounded once more.
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 0.5}


@torch.no_grad()
def verify(lm: LanguageModel, injection: Injection, compiled: CompiledKV) -> float:
    """Return the largest difference of log-probabilities. Raises SoftPromptError for one above the limit."""
    ids = [int(i) for i in torch.arange(3, 3 + TOKENS) * 7 % lm.spec.vocab_size]
    batch = batch_of_ids([ids[:1]], [[*ids[1:], 0]], device=lm.device)
    live = lm.logits(batch, injection)[0].float().log_softmax(-1)
    ours = logits_from(lm, compiled, ids).float().log_softmax(-1)
    worst = (live - ours).abs().max().item()
    if not worst <= LIMITS[lm.dtype]:
        raise SoftPromptError(
            f"the compiled prompt does not answer as the tuned one does on '{lm.name}'",
            why=f"log-probabilities differ by {worst:.2g}",
            fix="serve it with `softprompt serve`, which runs it as in training",
        )
    return worst


def logits_from(lm: LanguageModel, compiled: CompiledKV, ids: list[int]) -> Tensor:
    """Return logits [len(ids), V] of an input whose cache is filled with the compiled prompt."""
    cache = DynamicCache()
    for index, pair in enumerate(zip(compiled.keys, compiled.values, strict=True)):
        key, value = (tensor.to(lm.device, lm.dtype).transpose(0, 1)[None] for tensor in pair)
        cache.update(key, value, index)
    start, row = compiled.length, torch.tensor([ids], device=lm.device)
    positions = torch.arange(start, start + len(ids), device=lm.device)[None]
    options = lm.model_arguments(position_ids=positions)
    mask = torch.ones(1, start + len(ids), dtype=torch.long, device=lm.device)
    return lm.model(input_ids=row, attention_mask=mask, **{CACHE: cache}, **options).logits[0]
