"""Rows of different lengths are run in one pass of the model, without columns of padding between them.

Everything in a transformer but attention works on each position alone, so a model can compute the positions
of several rows as one long row [1, N, H]. Attention runs per group of rows of equal length (`injected.Pack`),
each with what is injected into it; groups do not see each other. Models whose attention cannot be split like
this are found by trying it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .attention import PACKED, SDPA
from .causal import CausalLM
from .injected import Active, Pack
from .library_internals import attention_of
from .model_errors import DoesNotRun

TRIED = (5, 3)  # tokens of the rows on which it is tried
KINDS = {"full_attention", "sliding_attention"}  # masks that a pack makes as transformers does


@torch.no_grad()
def run(lm: CausalLM, batches: Sequence[tuple[Tensor, Tensor, Tensor, Active]]) -> list[Tensor]:
    """Compute the logits [B, 1, V] of each batch's last columns, as `CausalLM.run` does for one batch.

    A batch is embeddings [B, S, H], their mask and their positions [B, S], and what is injected into it.
    """
    packs, keep, start = [], [], 0
    for _, mask, _, active in batches:
        packs.append(Pack(start, mask, active))
        keep.append(torch.arange(1, len(mask) + 1, device=lm.device) * mask.shape[1] + start - 1)
        start = packs[-1].end
    options = lm.model_arguments(
        inputs_embeds=torch.cat([vectors.flatten(0, 1) for vectors, *_ in batches])[None],
        position_ids=torch.cat([positions.flatten() for _, _, positions, _ in batches])[None],
        use_cache=False,
        logits_to_keep=torch.cat(keep),
    )
    with lm.running(Active(packs=tuple(packs))):
        logits = lm.model(**options).logits[0]
    return list(logits[:, None].split([len(mask) for _, mask, *_ in batches]))


@torch.no_grad()
def suits(lm: CausalLM) -> bool:
    """Return whether rows in one pass get the logits that they get alone, tried on two rows."""
    config = lm.model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if attention_of(config) not in (SDPA, PACKED) or kinds - KINDS or lm.head is not None:
        return False
    batches, alone = [], []
    for count in TRIED:
        ids = torch.arange(3, 3 + count, device=lm.device)[None] * 5 % lm.spec.vocab_size
        mask, positions = torch.ones_like(ids, dtype=torch.bool), torch.arange(count, device=lm.device)[None]
        batches.append((lm.token_inputs(ids), mask, positions, Active()))
        alone.append(lm.run(*batches[-1]))
    try:
        together = run(lm, batches)
    except DoesNotRun:
        return False  # it makes of its input what needs whole rows
    tolerance = 1e-4 if lm.dtype == torch.float32 else 0.1
    pairs = zip(together, alone, strict=True)
    return all((a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1) for a, b in pairs)
