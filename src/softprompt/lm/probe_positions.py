"""Measure on load from which number a model counts positions.

RoBERTa and its kin take token ids and count positions from behind their padding index; given embeddings, or
positions, they cannot know it. A row of embeddings is read like its tokens where it is given the positions
that the model itself gives the tokens: their first is found by trying.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SoftPromptError

IDS = (7, 14, 21, 28)


@torch.no_grad()
def first_position(model: Any, accepted: frozenset[str]) -> int:
    """Return the position of a row's first token; 0 for a model that takes no positions.

    Raises SoftPromptError where no positions give the answers that the model gives to the tokens alone.
    """
    if "position_ids" not in accepted or model.config.is_encoder_decoder:
        return 0
    size = model.get_input_embeddings().weight.shape[0]
    ids = torch.tensor([[i % size for i in IDS]], device=model.device)
    options = {"attention_mask": torch.ones_like(ids)}
    options |= {"use_cache": False} if "use_cache" in accepted else {}
    expected = model(input_ids=ids, **options).logits.float()
    most = (1e-4 if model.dtype == torch.float32 else 0.1) * expected.abs().max().clamp(min=1.0)

    def fits(first: int) -> bool:
        places = torch.arange(first, first + ids.shape[1], device=ids.device)[None]
        result = model(input_ids=ids, position_ids=places, **options).logits.float()
        return bool((result - expected).abs().max() <= most)

    for first in (0, *_behind_padding(model)):
        if fits(first):
            return first
    raise SoftPromptError(
        f"model family '{model.config.model_type}' cannot take injected vectors",
        why="it counts the positions of tokens in a way that was not recognised, so vectors in place of "
        "tokens would have other positions",
        fix="use another base model, and report this family",
    )


def _behind_padding(model: Any) -> list[int]:
    """Return the positions behind the padding index of the configuration and of each position table."""
    indices = [getattr(model.config.get_text_config(decoder=True), "pad_token_id", None)]
    for name, module in model.named_modules():
        if "position" in name and isinstance(module, nn.Embedding):
            indices += [module.padding_idx]
    return sorted({int(index) + 1 for index in indices if index is not None})


def positions_from(first: int, mask: Tensor) -> Tensor:
    """Count the positions [B, S] of the real columns of a mask [B, S]; padding has the first one."""
    return (mask.long().cumsum(1) - 1).clamp(min=0) + first
