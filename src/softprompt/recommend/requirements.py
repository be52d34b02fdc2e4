"""Collects what a method has to meet: what the user requires, and what is measured on rows and model.

Sizes are bytes, times seconds, lengths tokens. This file knows no method and no rule.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from .._system.progress import track
from ..data.collate import batch_of_ids
from ..data.labels import MAX_LABELS
from ..data.template import Rendered, Template
from ..lm.base import LanguageModel

LABEL_WORDS = 6  # a target of more words is an answer rather than a label
ROWS_A_LABEL = 3  # distinct targets that come up less often, on average, are answers
REPEATS = 3


@dataclass(frozen=True)
class Requirements:
    """The user's requirements are given here; None means no requirement."""

    model: str = "smollm2"
    tasks: int | None = None  # prompts to serve; None: as many as the rows name
    memory: int | None = None  # bytes, for the model and all prompts together
    latency: float | None = None  # seconds until a request's first token
    unseen: bool = False  # inputs will be of kinds that the rows do not show
    one_batch: bool = False  # requests of different prompts share a batch
    frozen: bool = False  # the base model may not be changed


@dataclass(frozen=True)
class Needs:
    """The needs are all that a rule may look at."""

    required: Requirements
    rows: int
    prompts: int  # named by the rows; 1 where they name none
    kind: str  # of task: "classification", "choice", "generation", "preference" or "embedding"
    labels: tuple[str, ...]  # classification: most frequent first
    majority: float | None  # classification: share of the most frequent label
    input_tokens: float  # median
    longest: int  # tokens of the longest row, input and target; embedding: of the longest text
    target_tokens: float  # median
    longest_target: int = 0
    model_kind: str = "decoder"  # "decoder", "encoder-decoder", "encoder"
    limits: Mapping[str, str] = field(default_factory=dict)  # as ModelSpec.limits
    context: int = 2048
    hidden_size: int = 576
    kv_numbers: int = 11520  # in the keys and values of one token, all layers
    depth: int = 30
    weights: int = 134_515_008
    weight_bytes: int = 269_030_016
    input_seconds: float | None = None  # one pass over a median input, measured here

    @property
    def tasks(self) -> int:
        """Return the number of prompts to serve."""
        return max(self.required.tasks or 1, self.prompts)

    @property
    def pooling(self) -> str | None:
        """Return what `task.pooling` must say; None where the model's own does, or no text is embedded."""
        return "last" if self.kind == "embedding" and self.model_kind == "decoder" else None

    @property
    def rows_a_prompt(self) -> float:
        """Return how many rows one prompt learns from, on average."""
        return self.rows / max(1, self.prompts)


def measure(
    rows: Sequence[Mapping[str, Any]],
    template: Template,
    lm: LanguageModel,
    required: Requirements,
    *,
    kind: str | None = None,
) -> Needs:
    """Measure the rows under the template, and the model. `kind` None: it is inferred from the targets."""
    rendered = [template.render(row) for row in track(rows, "reading rows")]
    kind = kind or kind_of(rendered)
    targets = Counter(item.target for item in rendered)
    frequent = [label for label, _ in targets.most_common()] if kind == "classification" else []
    lengths = [
        (_tokens(lm, item.input), _tokens(lm, item.target)) for item in track(rendered, "counting tokens")
    ]
    inputs, answers = map(list, zip(*lengths, strict=True))
    longest = max(a + b for a, b in zip(inputs, answers, strict=True))
    if kind == "embedding":  # each text is read alone
        others = {text for item in rendered for text in item.documents[1:]}
        longest = max(*inputs, *answers, *(_tokens(lm, text) for text in others))
    parameters = list(lm.model.parameters())
    return Needs(
        required,
        rows=len(rendered),
        prompts=max(1, len({item.prompt for item in rendered if item.prompt is not None})),
        kind=kind,
        labels=tuple(frequent),
        majority=targets[frequent[0]] / len(rendered) if frequent else None,
        input_tokens=median(inputs),
        longest=longest,
        target_tokens=median(answers),
        longest_target=max(answers),
        model_kind=lm.spec.kind,
        limits=lm.spec.limits,
        context=lm.spec.context,
        hidden_size=lm.spec.hidden_size,
        kv_numbers=lm.spec.kv_numbers_per_token,
        depth=lm.spec.depth,
        weights=sum(p.numel() for p in parameters),
        weight_bytes=sum(p.numel() * p.element_size() for p in parameters),
        input_seconds=None if required.latency is None else _seconds(lm, round(median(inputs))),
    )


def kind_of(rendered: Sequence[Rendered]) -> str:
    """Return the kind of task: embeddings, preferences or choices where rows have them, labels where few
    short targets occur often.
    """
    if all(item.documents for item in rendered):
        return "embedding"
    if all(item.rejected for item in rendered):
        return "preference"
    if all(item.choices for item in rendered):
        return "choice"
    targets = {item.target for item in rendered}
    few = 2 <= len(targets) <= min(MAX_LABELS, len(rendered) / ROWS_A_LABEL)
    short = all(len(target.split()) <= LABEL_WORDS for target in targets)
    return "classification" if few and short else "generation"


def _tokens(lm: LanguageModel, text: str) -> int:
    return len(lm.text_ids(text))


def _seconds(lm: LanguageModel, length: int) -> float | None:
    """Time one pass over so many tokens, the median of a few; None where the model is no decoder."""
    if lm.spec.kind != "decoder":
        return None
    ids = [index % lm.spec.vocab_size for index in range(max(1, min(length, lm.spec.context - 1)))]
    batch = batch_of_ids([ids], [[0]])
    with torch.no_grad():
        _timed(lambda: lm.logits(batch))
        return median(_timed(lambda: lm.logits(batch)) for _ in range(REPEATS))


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
