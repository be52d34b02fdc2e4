"""Options of `generate` that read a row's tokens or count its columns get that row's own, without padding.

transformers gives them all columns of the batch, padding and soft tokens included; with embeddings, none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor
from transformers import (
    EncoderNoRepeatNGramLogitsProcessor,
    EncoderRepetitionPenaltyLogitsProcessor,
    LogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    SequenceBiasLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from ..errors import SoftPromptError
from .generation import option_value


def with_own_inputs(model: Any, options: dict[str, Any], ids: Tensor, there: Tensor) -> None:
    """Give options about the input each row's own tokens; with embeddings transformers would ignore them."""
    rows = [row[mask][None] for row, mask in zip(ids, there, strict=True)]
    kinds: dict[str, Callable[..., LogitsProcessor]] = {
        "encoder_repetition_penalty": EncoderRepetitionPenaltyLogitsProcessor,
        "encoder_no_repeat_ngram_size": EncoderNoRepeatNGramLogitsProcessor,
    }
    for name, kind in kinds.items():
        value = option_value(model, options, name)
        if value not in (None, 0, 1.0) or (value == 1 and name == "encoder_no_repeat_ngram_size"):
            options[name] = 0 if name == "encoder_no_repeat_ngram_size" else 1.0
            _add(options, _ByRow([kind(value, row) for row in rows]))


def with_own_columns(model: Any, options: dict[str, Any], there: Tensor, columns: Tensor) -> None:
    """Give options that count or read columns the row's own, without padding (see `ids_in_place`).

    `there`: which columns are tokens, [B, S] bool; `columns`: how many are a row's own, soft tokens too, [B].
    """
    _own_lengths(model, options, there.shape[1], columns)
    if bool(there.all()):
        return
    ends = option_value(model, options, "eos_token_id")
    kinds: dict[str, Callable[[Any], LogitsProcessor]] = {
        "no_repeat_ngram_size": NoRepeatNGramLogitsProcessor,
        "sequence_bias": SequenceBiasLogitsProcessor,
        "bad_words_ids": lambda words: NoBadWordsLogitsProcessor(words, ends),
    }
    for name, kind in kinds.items():
        if value := options.pop(name, None):
            _add(options, _OwnTokens(kind(value), there))
    streamer = options.get("streamer")
    if streamer is not None and there.shape[0] == 1:
        options["streamer"] = _OwnPrompt(streamer, there)


def _own_lengths(model: Any, options: dict[str, Any], width: int, columns: Tensor) -> None:
    """Make `min_length` and `max_length` count a row's own columns and its new tokens."""
    least = options.pop("min_length", None)
    ends = option_value(model, options, "eos_token_id")
    if least and options.get("min_new_tokens") is None and ends is not None:
        _add(options, _OwnMinLength(least - columns, width, ends))
    most = options.get("max_length")
    if most is None or options.get("max_new_tokens") is not None:
        return
    longest = int(columns.max())
    if longest >= most:
        raise SoftPromptError(
            f"max_length={most} leaves no room for an answer",
            why=f"it counts the input too, which takes {longest} columns (soft tokens included)",
            fix=f"max_length={longest + 1} or more, or max_new_tokens",
        )
    del options["max_length"]
    options["max_new_tokens"] = most - int(columns.min())
    if len(set(columns.tolist())) > 1:
        criteria = options.get("stopping_criteria") or []
        options["stopping_criteria"] = StoppingCriteriaList([*criteria, _OwnMaxLength(most - columns, width)])


def _add(options: dict[str, Any], processor: LogitsProcessor) -> None:
    options["logits_processor"] = [*(options.get("logits_processor") or []), processor]


@final
class _OwnTokens(LogitsProcessor):
    """A processor that is shown each row's own tokens and nothing else."""

    def __init__(self, processor: LogitsProcessor, there: Tensor) -> None:
        self.processor, self.there = processor, there

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        there = self.there.repeat_interleave(input_ids.shape[0] // self.there.shape[0], dim=0)
        new = input_ids.shape[1] - there.shape[1]
        keep = torch.cat([there, there.new_ones(there.shape[0], new)], dim=1)
        rows = zip(input_ids, keep, scores, strict=True)
        return torch.cat([self.processor(ids[mask][None], score[None]) for ids, mask, score in rows])  # type: ignore[arg-type]


@final
class _OwnMinLength(LogitsProcessor):
    """No end token before a row has `least` new tokens, [B]; the input is `width` columns."""

    def __init__(self, least: Tensor, width: int, ends: Any) -> None:
        self.least, self.width = least, width
        self.ends = [int(end) for end in (ends if isinstance(ends, list | tuple) else [ends])]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        least = self.least.repeat_interleave(input_ids.shape[0] // self.least.shape[0])
        scores = scores.clone()
        held = (input_ids.shape[1] - self.width < least)[:, None]
        scores[:, self.ends] = scores[:, self.ends].masked_fill(held, float("-inf"))
        return scores


@final
class _OwnMaxLength(StoppingCriteria):
    """A row ends with its `most` new tokens, [B]; the input is `width` columns."""

    def __init__(self, most: Tensor, width: int) -> None:
        self.most, self.width = most, width

    def __call__(self, input_ids: Tensor, scores: Any, **named: Any) -> Tensor:  # type: ignore[override]
        most = self.most.repeat_interleave(input_ids.shape[0] // self.most.shape[0])
        return input_ids.shape[1] - self.width >= most


@final
class _ByRow(LogitsProcessor):
    """Each row of the batch, with its beams, has a processor of its own."""

    def __init__(self, processors: list[LogitsProcessor]) -> None:
        self.processors = processors

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        beams = input_ids.shape[0] // len(self.processors)
        parts = zip(self.processors, input_ids.split(beams), scores.split(beams), strict=True)
        return torch.cat([processor(ids, score) for processor, ids, score in parts])  # type: ignore[arg-type]


@final
class _OwnPrompt(BaseStreamer):
    """A streamer that is given the prompt's tokens first, without the columns that have none."""

    def __init__(self, streamer: BaseStreamer, there: Tensor) -> None:
        self.streamer, self.there = streamer, there.cpu()
        self.started = False

    def put(self, value: Tensor) -> None:
        if not self.started:
            value = value[self.there][None]
        self.started = True
        self.streamer.put(value)

    def end(self) -> None:
        self.streamer.end()
