"""Answers to inputs in any form that a caller gives: one, a list, an array, a generator, a data frame.

Few rows go through the model at a time, so its memory does not grow with the list. This file knows no
artifacts or recipes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, GenerationMixin

from ..data.collate import collate
from ..data.encode import Encoder
from ..data.example import Example
from ..data.python_rows import ended
from ..data.sources import read_rows
from ..data.task import WRITTEN
from ..errors import SoftPromptError, unknown
from ..lm import cache_name
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..lm.generation import answering
from ..methods.base import SoftPrompt
from .row_answers import answer
from .writing import written

ROWS_AT_ONCE = 16
GENERATE: Any = vars(GenerationMixin)["generate"]
# Options that have an effect only on sampling: a caller who gives one wants to sample.
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff")
# Options by which `generate` returns more than tokens, for which a text has no place.
OUTPUTS = (
    *("return_dict_in_generate", "output_scores", "output_logits"),
    *("output_attentions", "output_hidden_states"),
)


#: Attributes of the classes of data frames, tables and data sets. (A lazy frame warns where its are read.)
TABLE = ("columns", "column_names", "schema")


def listed(inputs: Any) -> tuple[list[Any], bool]:
    """Return (the inputs, whether a single one was given).

    Raises SoftPromptError where an input is neither a text nor a row.
    """
    if isinstance(inputs, str | Mapping):
        return [inputs], True
    if any(hasattr(type(inputs), mark) for mark in TABLE) or hasattr(inputs, "column_names"):
        empty = hasattr(inputs, "__len__") and not len(inputs)  # a lazy frame has no length
        return ([] if empty else list(read_rows(inputs, split="test"))), False
    if isinstance(inputs, bytes | bytearray | set | frozenset) or not isinstance(inputs, Iterable):
        raise _no_input("the input", inputs)
    try:
        many = list(ended(inputs, "the inputs"))
    except TypeError:  # an array of no dimension
        raise _no_input("the input", inputs) from None
    for number, item in enumerate(many):
        if not isinstance(item, str | Mapping):
            raise _no_input(f"input {number} (counted from 0)", item)
    return many, False


def _no_input(which: str, given: Any) -> SoftPromptError:
    kind = type(given).__name__
    ordered = isinstance(given, set | frozenset)
    return SoftPromptError(
        f"{which} is neither a text nor a row: {given!r:.60}",
        why="a set has no order, so its answers could not be matched to it" if ordered else f"it is a {kind}",
        fix="give a list" if ordered else "give a text (str), a row (dict), or several of them in a list",
    )


def checked(options: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return generation options in the form that `generate` takes.

    Raises SoftPromptError for unknown options, and for any option where no text is generated.
    """
    if options and kind not in WRITTEN:
        raise SoftPromptError(
            f"a {kind} prompt takes no generation options: {', '.join(options)}",
            why="it answers with the likeliest of its candidates, and writes no text",
            fix="leave them out",
        )
    known = (GenerationConfig().to_dict().keys() | inspect.signature(GENERATE).parameters) - {
        *("self", "inputs", "kwargs", "transformers_version")
    } | {*cache_name.NAMES, "logits_to_keep", "tokenizer", "compile_config"}
    for name in options:
        if name not in known:
            raise unknown("generation option", name, known, fix="see docs/running.md")
    if wanted := [name for name in OUTPUTS if options.get(name)]:
        raise SoftPromptError(
            f"{', '.join(wanted)} cannot be used where answers are texts",
            why="a text has no place for scores and states",
            fix="use LanguageModel.generate, which returns transformers' output object (docs/running.md)",
        )
    result = dict(options)
    if result.get("temperature") == 0:  # the likeliest token, as in other libraries
        result |= {"temperature": None, "do_sample": False}
    if result.get("do_sample") is None and any(result.get(name) is not None for name in SAMPLING):
        result["do_sample"] = True
    return result


def texts(
    lm: LanguageModel,
    method: SoftPrompt,
    encoder: Encoder,
    examples: Sequence[Example],
    max_new_tokens: int,
    options: Mapping[str, Any],
) -> list[Any]:
    """Return the answer to each example; a list of answers where `num_return_sequences` is given."""
    options = checked(options, encoder.kind)
    if options.get("streamer") is not None and len(examples) > 1:
        raise SoftPromptError(
            f"a streamer takes one input, not {len(examples)}",
            why="their tokens would be mixed",
            fix="call generate once for each input",
        )
    if encoder.kind not in WRITTEN:
        parts = _parts(examples, ROWS_AT_ONCE)
        return [text for part in parts for text in _chosen(lm, method, encoder, part)]
    chosen = answering(lm, max_new_tokens, **options)
    most = len(examples) if cache_name.given(options) is not None else ROWS_AT_ONCE
    answers: list[Any] = [None] * len(examples)
    try:
        for numbers, output in written(lm, method, examples, [*_parts(range(len(examples)), most)], chosen):
            texts = [encoder.decode(ids) for ids in output]
            returns = len(texts) // len(numbers)  # the answers to a row follow each other
            several = options.get("num_return_sequences") is not None or returns > 1
            for place, number in enumerate(numbers):
                group = texts[place * returns : (place + 1) * returns]
                answers[number] = group if several else group[0]
    except (ValueError, TypeError, NotImplementedError) as error:  # of transformers, about the options
        raise SoftPromptError(
            "transformers does not generate with these options",
            why=(str(error).strip() or type(error).__name__).splitlines()[0],
            fix=f"change or leave out one of: {', '.join(options) or 'none was given'}",
        ) from error
    return answers


@torch.no_grad()
def _chosen(
    lm: LanguageModel, method: SoftPrompt, encoder: Encoder, examples: Sequence[Example]
) -> list[str]:
    """Return the likeliest candidate of each row."""
    batch = collate(examples, lm.device, targets=False)
    injection = injection_for(lm, method, batch)
    answers = answer(lm, encoder, batch, injection, lm.context(batch, injection), examples)
    return [item.text for item in answers]


def _parts(rows: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), max(1, most)):
        yield rows[start : start + most]
