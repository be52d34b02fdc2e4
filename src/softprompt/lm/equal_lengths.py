"""Rows that may not share a batch are found by measuring on load, and then run separately.

A padded row must get the answer that it gets alone. Some models do not give it: recurrences that run over
padding, Fourier mixing, encoders and decoders that ignore their mask, experts with room for a number of
tokens of a batch. Such a model is still exact where a batch has no padding, or has one row. So each call is
split into batches that it answers exactly; this takes more passes. This file knows no family by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..data.collate import Batch
from ..errors import SoftPromptError
from ..injection import Injection
from . import cache_name

NOT_KEPT = "its answers depend on padding (measured), so rows of different lengths share no batch"

Method = TypeVar("Method", bound=Callable[..., Any])


def apart(method: Method) -> Method:
    """A method of (batch, injection, …) that returns rows: run on each part that is answered exactly."""

    @wraps(method)
    def run(lm: Any, batch: Batch, injection: Injection | None = None, *more: Any, **options: Any) -> Any:
        if lm.spec.batching == "any" or batch.size == 1:
            return method(lm, batch, injection, *more, **options)
        injection = injection or Injection()
        parts = _parts(batch, injection, one_by_one=lm.spec.batching == "one")
        _check(lm, options, len(parts))
        results = []
        for rows in parts:
            index = torch.tensor(rows, device=batch.input_ids.device)
            results.append(
                method(lm, _cut(batch, index, lm.spec.kind), _select(injection, index), *more, **options)
            )
        logits = results[0].dim() == 3 if isinstance(results[0], Tensor) else False
        width = batch.target_ids.shape[1] if logits and lm.head is None else 0
        return results[0] if len(parts) == 1 and not logits else _in_order(results, parts, width, lm)

    return cast(Method, run)


def hidden_apart(method: Method) -> Method:
    """A method of (ids, mask, layer) that returns states [B, N, H], run on each row without its padding."""

    @wraps(method)
    def run(lm: Any, ids: Tensor, mask: Tensor, layer: int) -> Tensor:
        if lm.spec.batching == "any":
            return method(lm, ids, mask, layer)
        states = [method(lm, row[real][None], real[real][None], layer)[0] for row, real in zip(ids, mask)]  # noqa: B905
        whole = states[0].new_zeros(*ids.shape, states[0].shape[-1])
        return whole.masked_scatter(mask[:, :, None], torch.cat(states))

    return cast(Method, run)


def _parts(batch: Batch, injection: Injection, one_by_one: bool) -> list[list[int]]:
    """Group row numbers: rows of the same length in input, target and each channel, or single rows."""
    if one_by_one:
        return [[row] for row in range(batch.size)]
    masks = [batch.input_mask, batch.target_mask, *(part.mask for part in injection.channels().values())]
    lengths = [mask.sum(1).expand(batch.size).tolist() for mask in masks]
    parts: dict[tuple[int, ...], list[int]] = {}
    for row, key in enumerate(zip(*lengths, strict=True)):
        parts.setdefault(key, []).append(row)
    return list(parts.values())


def _cut(batch: Batch, rows: Tensor, kind: str) -> Batch:
    """Those rows, without columns that none of them uses."""
    cut = batch.select(rows).with_inputs_at_right()
    return cut if kind == "encoder" else cut.with_targets_at_right()  # an encoder reads none


def _select(injection: Injection, rows: Tensor) -> Injection:
    # what is one row's is every row's
    return injection.map_rows(lambda t: t if t.shape[0] == 1 else t.index_select(0, rows.to(t.device)))


def _check(lm: Any, options: dict[str, Any], parts: int) -> None:
    """Raises where an option of `generate` is for a whole batch that is split."""
    if parts == 1:
        return
    whole = ("return_dict_in_generate", *cache_name.NAMES, "streamer")
    configs = (options.get("generation_config"), getattr(lm.model, "generation_config", None))
    given = [n for n in whole if options.get(n) or any(getattr(config, n, None) for config in configs)]
    given += [name for name, value in options.items() if isinstance(value, Tensor) and value.dim()]
    if given:
        raise SoftPromptError(
            f"{given[0]} cannot be combined with rows of different lengths on a {lm.spec.family} model",
            why=f"{NOT_KEPT}, and the option is for all of them at once",
            fix="generate for one row at a time",
        )


def _in_order(results: Sequence[Tensor], parts: Sequence[Sequence[int]], width: int, lm: Any) -> Tensor:
    """Put the rows of all parts into the batch's order.

    Logits [B, T, V] are padded on the left, like targets, to `width` at least; tokens [B × samples, n] on the
    right.
    """
    width = max(width, *(part.shape[1] for part in results))
    tokens = results[0].dim() == 2
    fill = lm.pad_id if tokens else 0
    wide = [
        pad(part, (0, width - part.shape[1]), value=fill)
        if tokens
        else pad(part, (0, 0, width - part.shape[1], 0))
        for part in results
    ]
    times = results[0].shape[0] // len(parts[0])  # the samples of a row follow each other
    order = torch.tensor([row * times + i for rows in parts for row in rows for i in range(times)])
    return torch.cat(wide)[order.argsort().to(wide[0].device)]
