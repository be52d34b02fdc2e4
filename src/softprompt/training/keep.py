"""`train.keep` keeps the model with vectors near the plain model on general text.

A step reads rows of general text beside its own rows. Over many steps they are the share of all tokens that
are read, inputs and targets; a step of few tokens may have none. Their teacher is the plain model without
vectors, and their loss is the divergence of `lm.divergence`. Every target token counts the same, but general
text never more than the rows:

    loss = (1 - w) · mean over the rows' losses + w · mean over the target tokens of general text
    w = min(1/2, target tokens of general text / all target tokens)

A row is laid out like any other: the vectors are ahead of its first `LEAD` tokens, or between them and the
others, which are the target. This file does not know how a loss is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .. import methods
from ..cache.folders import cache_place
from ..config.schema import Recipe
from ..data.example import Example
from ..data.row import Row
from ..data.template import Rendered
from ..errors import SoftPromptError
from ..lm.base import LanguageModel
from . import general_text
from .decisive import optimization
from .teacher import distributions

LEAD, CHUNK = 16, 64  # tokens of a row: ahead of the target, and in all
LEAST = 8  # tokens of a target; a shorter end of a text is left out


@dataclass(frozen=True)
class GeneralText:
    """General text is rows with the plain model's distributions, and their share of the tokens."""

    examples: tuple[Example, ...]
    share: float  # of the tokens that a step reads
    seed: int
    fingerprint: str  # hash of the texts

    def rows(self, step: int, examples: Sequence[Example]) -> list[int]:
        """Return the numbers of the rows that go with a step's `examples`, by (seed, step) alone.

        Where the share is no whole number of rows, the number is rounded up as often as makes the share right
        over many steps.
        """
        length = _tokens(self.examples) / len(self.examples)
        wanted = _tokens(examples) * self.share / (1 - self.share) / length
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        order = torch.randperm(len(self.examples), generator=generator)
        return order[: int(wanted + torch.rand((), generator=generator).item())].tolist()


def _tokens(examples: Sequence[Example]) -> int:
    """Count the tokens that a step reads of these rows."""
    return sum(len(e.input_ids) * len(e.answers) + e.answer_tokens for e in examples)


def general_text_of(recipe: Recipe, lm: LanguageModel, prompts: Sequence[str]) -> GeneralText | None:
    """Return the general text of a recipe; None where it keeps none. The base must not be trained yet.

    Each prompt has rows of its own. Raises SoftPromptError for a model that predicts no text, and for text
    that gives no row.
    """
    share = recipe.train.kept_share
    if not share:
        return None
    if lm.answers != "next":
        raise SoftPromptError(
            "train.keep needs a model that predicts text",
            why="it compares distributions of the next token; this model "
            + {"head": "answers by a head", "pooled": "gives vectors"}.get(lm.answers, "fills in masks"),
            fix="train.keep=0",
        )
    if recipe.train.keep_text is not None:
        texts = general_text.read_texts(recipe.train.keep_text)
    else:
        wanted = max(optimization(recipe).steps, len(prompts))
        texts = general_text.written_texts(lm, wanted, cache_place(recipe))
    rows = _rows(recipe, lm, texts)
    known = distributions(recipe, lm, rows)
    rows = [replace(row, teacher=teacher) for row, teacher in zip(rows, known, strict=True)]
    examples = (
        replace(rows[i % len(rows)], prompt=i % len(prompts)) for i in range(max(len(rows), len(prompts)))
    )
    return GeneralText(tuple(examples), share, recipe.train.seed, general_text.fingerprint(texts))


def _rows(recipe: Recipe, lm: LanguageModel, texts: Sequence[str]) -> list[Example]:
    """Cut texts into rows of `CHUNK` tokens, or of as many as fit beside the vectors."""
    soft, _, _ = methods.soft_tokens(recipe.method.name, recipe.method.options())
    size = min(CHUNK, lm.spec.context - soft)
    lead = min(LEAD, size // 2)
    least = lead + min(LEAST, lead)
    rows = []
    for text in texts if lead > 0 else ():
        ids = general_text.ids_of(lm, text)
        chunks = (ids[start : start + size] for start in range(0, len(ids), size))
        rows += [_example(lm, chunk, lead) for chunk in chunks if len(chunk) >= least]
    if not rows:
        raise SoftPromptError(
            "the general text of train.keep gives no row",
            why=f"a row takes at least {least} tokens, of which the model has room for {size}",
            fix="longer texts: train.keep_text=FILE; or train.keep=0",
        )
    return rows


def _example(lm: LanguageModel, ids: Sequence[int], lead: int) -> Example:
    assert lm.tokenizer is not None  # it gave the ids
    text, target = (lm.tokenizer.decode(list(part)) for part in (ids[:lead], ids[lead:]))
    fields: dict[str, Any] = {"input": text, "target": target}
    rendered = Rendered(text, target, None, None, (target,), Row(fields, "general text"))
    return Example(tuple(ids[:lead]), tuple(ids[lead:]), 0, rendered, None)
