"""Contexts are continued, greedily or by transformers' generation options, up to a stop string.

This file knows nothing of `lm_eval`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from ..data.collate import batch_of_ids
from ..data.tokens import Ids
from ..errors import SoftPromptError
from ..evaluation.answering import SAMPLING, checked
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..lm.generation import answering, tokens_of
from .arguments import Subject
from .likelihood import parts

# of the checkpoint's own settings: the harness decides these
LENGTHS = ("max_length", "max_new_tokens")


@dataclass(frozen=True, slots=True)
class Opening:
    """A context whose continuation is generated."""

    ids: Ids
    text: str = ""  # for prefix models with a tokenizer of their own


class StopAt(StoppingCriteria):
    """Ends a row as soon as one of the stop strings is in its new text.

    Only the end of the text is decoded at each step: as many tokens as the longest stop string has, and two,
    since it may be written in other tokens.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        self.tokenizer, self.stops = tokenizer, tuple(stops)
        lengths = [len(tokenizer.encode(stop, add_special_tokens=False)) for stop in stops]
        self.looked_at = max(lengths, default=0) + 2
        self.first: int | None = None  # the column of the first new token

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        width = input_ids.shape[1]
        self.first = width - 1 if self.first is None else self.first
        ends = self.tokenizer.batch_decode(input_ids[:, max(self.first, width - self.looked_at) :])
        stopped = [any(stop in end for stop in self.stops) for end in ends]
        return torch.tensor(stopped, device=input_ids.device)


def continuations(
    subject: Subject,
    contexts: Sequence[Opening],
    count: int,
    stops: Sequence[str],
    options: Mapping[str, Any],
    batch_rows: int | None,
    done: Callable[[Sequence[int], Sequence[str]], None],
) -> None:
    """Generate at most `count` tokens after each context; `done` gets numbers of contexts and their texts.

    A text ends before the first stop string. `options` are transformers' generation options, over the
    checkpoint's own, which transformers' `generate` would take too. Raises SoftPromptError for unknown ones.
    """
    lm = subject.lm
    stops = [stop for stop in stops if stop]
    wanted = _options(lm, options)
    order = sorted(range(len(contexts)), key=lambda i: (-len(contexts[i].ids), contexts[i].ids))
    lengths = [len(context.ids) + count for context in contexts]
    for part in parts(order, lengths, lm, batch_rows):
        chosen = [contexts[i] for i in part]
        batch = batch_of_ids(
            [context.ids for context in chosen], prompts=[subject.prompt] * len(part), device=lm.device
        )
        batch = replace(batch, texts=tuple(context.text for context in chosen))
        if stops:
            wanted["stopping_criteria"] = StoppingCriteriaList([StopAt(lm.tokenizer, stops)])
        with torch.no_grad():
            injection = injection_for(lm, subject.method, batch)
            try:
                output = lm.generate(batch, injection, **answering(lm, count, **wanted))
            except (
                ValueError,
                TypeError,
                NotImplementedError,
            ) as error:  # of transformers
                raise SoftPromptError(
                    "transformers does not generate with the task's generation_kwargs",
                    why=(str(error).strip() or type(error).__name__).splitlines()[0],
                    fix=f"change or leave out one of: {', '.join(options) or 'none was given'}",
                ) from error
        done(part, [_text(lm, ids, stops) for ids in tokens_of(output).tolist()])


def _options(lm: LanguageModel, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `generate`: the checkpoint's own, then the given ones."""
    inherited = {name: value for name, value in lm.inherited.items() if name not in LENGTHS}
    options = checked(given, "generation")
    if not options.get("do_sample"):
        inherited = {name: value for name, value in inherited.items() if name not in ("do_sample", *SAMPLING)}
        options = {name: value for name, value in options.items() if name not in SAMPLING}
    return inherited | options


def _text(lm: LanguageModel, ids: Sequence[int], stops: Sequence[str]) -> str:
    """Decode new tokens up to an end token, and cut the text before the first stop string."""
    end = next((i for i, token in enumerate(ids) if token in lm.ends), len(ids))
    text = lm.tokenizer.decode(ids[:end], skip_special_tokens=True)
    for stop in stops:
        text = text.split(stop)[0]
    return text
