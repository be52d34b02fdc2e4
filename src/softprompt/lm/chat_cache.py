"""Several turns on one cache: `generate(…, past_key_values=cache)` again, with the whole conversation.

transformers computes only what the cache lacks, and takes on trust that the rest is what the cache
holds. What an injection puts ahead of the text is there in every turn: soft tokens in the cache, columns
beside it. Where a turn would not equal the conversation computed anew, it is refused here: vectors that
stand behind the input (the input was shorter a turn ago), text that is not the one in the cache, rows
that no longer stand below each other, and models whose layers do not go on from a cache.
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

NOTE = "softprompt_heard"  # attribute of a cache: what it holds
CONTINUES = "continues from a cache"  # whether its layers do, as measured once
FRESH = "leave past_key_values out, or give an empty cache: the conversation is then computed anew"


@dataclass(frozen=True, slots=True)
class Heard:
    """What a cache holds: by row the ids of its tokens, and under which injection they were read."""

    rows: list[list[int]]
    injection: Injection


def length(cache: Any) -> int:
    """Columns in a cache; 0 for none."""
    try:
        return 0 if cache is None else int(cache.get_seq_length())
    except ValueError:  # of a model without attention: transformers itself takes no such cache
        return 0


def check(model: Any, cache: Any, batch: Batch, injection: Injection) -> None:
    """Raises SoftPromptError unless going on from `cache` equals computing `batch` anew."""
    if not length(cache):
        return
    if late := [name for name in ("after", "kv_after") if name in injection.channels()]:
        raise _refusal(
            f"vectors placed after the input ({', '.join(late)}) do not go with a cache of an earlier turn",
            why="they stood behind that turn's input, and what followed has read them there",
        )
    heard: Heard | None = getattr(cache, NOTE, None)
    rows = _rows(batch)
    if heard is None or len(heard.rows) != len(rows):
        raise _refusal(
            "it is not known what this cache holds",
            why="it was not filled by this library's `generate` with one row for each row of the batch",
        )
    if not all(row[: len(old)] == old for row, old in zip(rows, heard.rows, strict=True)):
        raise _refusal(
            "the cache holds another text than the conversation begins with",
            why="a row's ids must be those of the turns before, generated ones included, and then its own",
        )
    if not _same(heard.injection, injection):
        raise _refusal(
            "the cache was filled under another prompt", why="what it holds has read that one's vectors"
        )
    added = {len(row) - len(old) for row, old in zip(rows, heard.rows, strict=True)}
    if len(added) > 1 or min(added) < 1:
        raise _refusal(
            f"the rows have {', '.join(map(str, sorted(added)))} tokens that the cache lacks",
            why="its rows stand below each other, so each must go on by as many tokens, and by one at least",
        )
    if not _continues(model):
        raise _refusal(
            f"{model.config.model_type} models cannot go on from a cache by several tokens",
            why="in transformers, some of its layers start anew there (measured: other logits)",
        )


def note(cache: Any, batch: Batch, injection: Injection, made: Tensor, width: int) -> None:
    """Remember what `cache` holds, after `width` columns of input and those of `made` [B, n] it has seen."""
    if cache is None:
        return
    fed = length(cache) - width  # the last new token was not fed back
    whole = made.shape[0] == batch.size == _cached_rows(cache)  # not so after beams and several samples
    new = made[:, :fed].tolist() if whole else []
    rows = [old + more for old, more in zip(_rows(batch), new, strict=True)] if whole else []
    setattr(cache, NOTE, Heard(rows, injection.map_rows(Tensor.detach)))


def _refusal(what: str, why: str) -> SoftPromptError:
    return SoftPromptError(what, why=why, fix=FRESH)


def _rows(batch: Batch) -> list[list[int]]:
    return [ids[mask].tolist() for ids, mask in zip(batch.input_ids, batch.input_mask, strict=True)]


def _same(a: Injection, b: Injection) -> bool:
    if a.channels().keys() != b.channels().keys():
        return False
    mine, theirs = _tensors(a), _tensors(b)
    return len(mine) == len(theirs) and all(map(torch.equal, mine, theirs))


def _tensors(injection: Injection) -> list[Tensor]:
    """Every tensor of an injection, in an order of its own."""
    found: list[Tensor] = []
    injection.map_rows(lambda tensor: found.append(tensor) or tensor)
    return found


def _cached_rows(cache: Any) -> int:
    """Rows of the first layer that keeps keys."""
    keys = (getattr(layer, "keys", None) for layer in cache.layers)
    return next((k.shape[0] for k in keys if isinstance(k, Tensor)), 0)


@torch.no_grad()
def _continues(model: Any) -> bool:
    """Whether the plain model's logits after a cached start are those of the whole row, measured once."""
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
