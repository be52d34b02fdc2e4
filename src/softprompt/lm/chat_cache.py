"""Several turns use one cache: `generate(…, past_key_values=cache)` again, with the whole conversation.

transformers computes only what the cache lacks, and does not check that the rest is what the cache holds.
An injection ahead of the text is there in every turn: soft tokens in the cache, columns beside it. A turn
that would not equal the conversation computed from the start is refused here: vectors after the input (the
input was shorter a turn ago), text that is not the one in the cache, rows that are no longer aligned, and
models whose layers do not continue from a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.collate import Batch
from ..errors import SoftPromptError
from ..injection import Injection
from .attachment import attach
from .cache_name import CACHE
from .probe import accepted_arguments

NOTE = "softprompt_content"  # attribute of a cache, copied with it: what it holds
CONTINUES = "continues from a cache"  # whether its layers do, as measured once
FRESH = "leave past_key_values out, or give an empty cache: the conversation is then computed from the start"


@dataclass(frozen=True, slots=True)
class Content:
    """A cache holds these tokens, by row, which were read under this injection."""

    rows: list[list[int]]
    injection: Injection


def length(cache: Any) -> int:
    """Return the number of columns in a cache; 0 for no cache."""
    try:
        return 0 if cache is None else int(cache.get_seq_length())
    except ValueError:  # of a model without attention: transformers itself takes no such cache
        return 0


def check(model: Any, cache: Any, batch: Batch, injection: Injection) -> None:
    """Raise SoftPromptError unless continuing from `cache` equals computing `batch` from the start."""
    if not length(cache):
        return
    if late := [name for name in ("after", "kv_after") if name in injection.channels()]:
        raise _refusal(
            f"vectors after the input ({', '.join(late)}) cannot be combined with a cache of an earlier turn",
            why="they followed that turn's input, and the tokens behind them have read them there",
        )
    content: Content | None = getattr(cache, NOTE, None)
    rows = _rows(batch)
    if content is None or len(content.rows) != len(rows):
        raise _refusal(
            "it is not known what this cache holds",
            why="it was not filled by this library's `generate` with one row for each row of the batch",
        )
    if not all(row[: len(old)] == old for row, old in zip(rows, content.rows, strict=True)):
        raise _refusal(
            "the cache holds another text than the conversation begins with",
            why="a row's ids must be those of the turns before, generated ones included, and then its own",
        )
    if not _same(content.injection, injection):
        raise _refusal(
            "the cache was filled under another prompt", why="what it holds has read that one's vectors"
        )
    added = {len(row) - len(old) for row, old in zip(rows, content.rows, strict=True)}
    if len(added) > 1 or min(added) < 1:
        raise _refusal(
            f"the rows have {', '.join(map(str, sorted(added)))} tokens that the cache lacks",
            why="its rows are aligned, so each must continue by the same number of tokens, one at least",
        )
    if not _continues(model):
        raise _refusal(
            f"{model.config.model_type} models cannot continue from a cache by several tokens",
            why="in transformers, some of its layers start from the beginning there (measured: other logits)",
        )


def note(cache: Any, batch: Batch, injection: Injection, tokens: Tensor, width: int) -> None:
    """Remember what `cache` holds: `width` columns of input, and those of `tokens` [B, n] it has seen."""
    if cache is None:
        return
    fed = length(cache) - width  # the last new token was not fed back
    whole = tokens.shape[0] == batch.size == _cached_rows(cache)  # not so after beams and several samples
    new = tokens[:, :fed].tolist() if whole else []
    rows = [old + more for old, more in zip(_rows(batch), new, strict=True)] if whole else []
    setattr(cache, NOTE, Content(rows, injection.map_rows(Tensor.detach)))


def _refusal(message: str, why: str) -> SoftPromptError:
    return SoftPromptError(message, why=why, fix=FRESH)


def _rows(batch: Batch) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(batch.input_ids, batch.input_mask, strict=True)]


def _same(a: Injection, b: Injection) -> bool:
    if a.channels().keys() != b.channels().keys():
        return False
    mine, theirs = _tensors(a), _tensors(b)
    return len(mine) == len(theirs) and all(map(torch.equal, mine, theirs))


def _tensors(injection: Injection) -> list[Tensor]:
    """Return every tensor of an injection, always in the same order."""
    tensors: list[Tensor] = []
    injection.map_rows(lambda tensor: tensors.append(tensor) or tensor)
    return tensors


def _cached_rows(cache: Any) -> int:
    """Return the number of rows of the first layer that keeps keys."""
    keys = (getattr(layer, "keys", None) for layer in cache.layers)
    return next((k.shape[0] for k in keys if isinstance(k, Tensor)), 0)


@torch.no_grad()
def _continues(model: Any) -> bool:
    """Measure once whether the plain model's logits after a cached start are those of the whole row."""
    measured = attach(model).measured
    if CONTINUES in measured:
        return measured[CONTINUES]
    ids = (torch.arange(3, 10, device=model.device) * 5 % model.get_input_embeddings().weight.shape[0])[None]
    at = torch.arange(ids.shape[1], device=ids.device)[None]
    placed = "position_ids" in accepted_arguments(model)  # as `generate` gives them

    def run(part: slice, cache: Any = None) -> Any:
        places = {"position_ids": at[:, part]} if placed else {}
        return model(input_ids=ids[:, part], use_cache=True, **{CACHE: cache}, **places)

    whole = run(slice(None)).logits[0, -1].float()
    rest = run(slice(4, None), getattr(run(slice(4)), CACHE)).logits[0, -1].float()
    off = (rest - whole).abs().max() / whole.abs().max().clamp(min=1.0)
    measured[CONTINUES] = bool(off < (1e-4 if model.dtype == torch.float32 else 0.1))
    return measured[CONTINUES]
