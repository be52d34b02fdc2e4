"""The ways to answer a request that a report compares: what comes ahead of it, and through which path.

text                         the full text, as the teacher reads it
vectors                      the tuned vectors (the runs of all seeds)
text as keys and values      the whole text's keys and values through the path of a prefix, untrained
text cut to as many tokens   the first tokens of the text
summary in as many tokens    what the model writes when it is asked to summarise the text
no text
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .. import methods
from ..data.collate import collate
from ..data.example import Example
from ..injection import Injection
from ..lm.apply import injection_for
from ..lm.base import LanguageModel
from ..methods.base import Setting, SoftPrompt
from ..methods.materialised import Materialised
from ..training.prepare import Prepared
from ..training.run import Run
from ..training.teacher import taught
from ..training.teacher_encoder import TeacherEncoder
from .answers import Answer
from .beginnings import as_prefix
from .summary import first_tokens, summary

TEXT, VECTORS, THROUGH, CUT, SUMMARY, NONE = (
    "text",
    "vectors",
    "text as keys and values",
    "text cut to as many tokens",
    "summary in as many tokens",
    "no text",
)


@dataclass(frozen=True)
class Way:
    """A way is one method for each seed (one where no seed varies it), and the rows as it reads them."""

    methods: Sequence[SoftPrompt]
    examples: Sequence[Example]


@dataclass(frozen=True)
class Ways:
    """Hold all ways by name, the columns that the vectors take, and the texts instead of the full one."""

    ways: dict[str, Way]
    soft_tokens: int
    texts: dict[str, str]


def ways_of(runs: Sequence[Run], rows: Sequence[Answer], folder: Path) -> Ways:
    """Return the ways to answer `rows`. The summary is kept in `folder`.

    A way that the model cannot take is left out: keys and values where it takes no prefix or a document is
    shown in chunks, the cut text and the summary where they are empty.
    """
    prepared = runs[0].prepared
    lm, recipe = prepared.lm, prepared.recipe
    (examples,), beginning = taught(recipe, lm, prepared.prompts, [prepared.encoder.encode_rows(rows)])
    teacher = TeacherEncoder(recipe, lm, prepared.prompts)
    soft = soft_tokens(prepared)
    plain = plain_model(prepared)
    ways = {
        TEXT: Way([plain], with_text(prepared, teacher.text, examples)),
        VECTORS: Way([run.prepared.method for run in runs], examples),
    }
    if teacher.is_whole and beginning and "prefix" not in lm.spec.limits and lm.spec.kind == "decoder":
        rest = [replace(e, input_ids=e.input_ids[len(beginning) :]) for e in ways[TEXT].examples]
        ways[THROUGH] = Way([Materialised([as_prefix(lm, beginning)])], rest)
    texts = {
        CUT: first_tokens(lm, teacher.text, soft),
        SUMMARY: summary(recipe, lm, teacher.text, soft, folder),
    }
    for name, text in texts.items():
        if text.strip():
            ways[name] = Way([plain], with_text(prepared, text, examples))
    ways[NONE] = Way([plain], examples)
    return Ways(ways, soft, texts)


def plain_model(prepared: Prepared) -> SoftPrompt:
    """Return the method without vectors."""
    return methods.build("none", Setting(prepared.lm, prepared.prompts))


def with_text(prepared: Prepared, text: str, examples: Sequence[Example]) -> list[Example]:
    """Return the examples with a text ahead of their inputs."""
    recipe = prepared.recipe
    teacher = recipe.teacher.model_copy(update={"context": text, "file": None, "texts": None})
    encoder = TeacherEncoder(recipe.model_copy(update={"teacher": teacher}), prepared.lm, prepared.prompts)
    inputs = [encoder.encode(e.rendered.row).input_ids for e in examples]
    return [replace(e, input_ids=ids) for e, ids in zip(examples, inputs, strict=True)]


def soft_tokens(prepared: Prepared) -> int:
    """Return the columns that the vectors take in each layer, or in the input."""
    channels = _injection(prepared.lm, prepared).channels()
    return max((part.mask.shape[1] for part in channels.values()), default=0)


def _injection(lm: LanguageModel, prepared: Prepared) -> Injection:
    batch = collate(prepared.train[:1], lm.device)
    with torch.no_grad():
        return injection_for(lm, prepared.method, batch)
