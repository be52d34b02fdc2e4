"""The figures of a distillation say how much of the text's effect is left, and what is saved."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from .. import methods
from ..data.collate import collate
from ..data.example import Example
from ..evaluation.evaluator import evaluator_of
from ..evaluation.records import Evaluation
from ..injection import Injection, Prefix
from ..lm.apply import injection_for
from ..methods.base import Setting, SoftPrompt
from ..methods.materialised import Materialised
from ..training.run import Run
from ..training.teacher import taught
from ..training.teacher_encoder import TeacherEncoder
from .answers import Answer

METRICS = ("kl", "agreement", "chrf", "exact_match")
RESAMPLES = 2000
TIMED = 5  # requests whose first token is timed
SHOWN = 3  # requests that are answered side by side


@dataclass(frozen=True)
class Figures:
    """The figures of the requests that were kept apart (test rows), and the costs."""

    ways: dict[str, dict[str, Any]]  # by what comes ahead of a request: metrics with intervals
    share: tuple[float, float, float]  # of the text's effect that the vectors keep, with its 95 % interval
    text_tokens: int  # a request carries them with the text, and not with the vectors
    soft_tokens: int  # columns of the vectors
    first_token: dict[str, float]  # median seconds
    seconds: float  # that the distillation took
    answered: tuple[int, int]  # complete answers of the teacher, of all
    samples: list[dict[str, str]]

    @property
    def saved_seconds(self) -> float:
        """Return the seconds that a request's first token comes sooner."""
        return self.first_token["text"] - self.first_token["vectors"]

    @property
    def paid_after(self) -> float | None:
        """Return the number of requests after which the tuning has paid for itself; None if never."""
        return self.seconds / self.saved_seconds if self.saved_seconds > 0 else None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "paid_after_requests": self.paid_after}


def measure(
    run: Run, text: str, rows: Sequence[Answer], seconds: float, answered: tuple[int, int]
) -> Figures:
    """Score every way to answer `rows`, against the answers and distributions of the full text."""
    prepared = run.prepared
    lm, recipe = prepared.lm, prepared.recipe
    examples = prepared.encoder.encode_rows(rows)
    (examples,), beginning = taught(recipe, lm, prepared.prompts, [examples])
    plain = methods.build("none", Setting(lm, prepared.prompts))
    ways = {"text": (plain, _with_text(run, text, examples)), "vectors": (prepared.method, examples)}
    is_whole = TeacherEncoder(recipe, lm, prepared.prompts).is_whole
    if is_whole and (through := _through_the_path(run, ways["text"][1], beginning)) is not None:
        ways["text as keys and values"] = through
    soft = max(0, *(part.mask.shape[1] for part in _injection(run).channels().values()))
    short = lm.tokenizer.decode(lm.text_ids(text)[:soft])
    if short.strip():
        ways["text cut to as many tokens"] = plain, _with_text(run, short, examples)
    ways["no text"] = plain, examples
    evaluator = replace(evaluator_of(recipe, lm, prepared.encoder), metrics=METRICS)
    results = {name: evaluator.run(method, shown) for name, (method, shown) in ways.items()}
    shown = [
        {
            "request": str(row["request"]),
            **{name: results[name].records[i].prediction for name in ("text", "vectors", "no text")},
        }
        for i, row in enumerate(rows[:SHOWN])
    ]
    return Figures(
        ways={name: result.to_json() for name, result in results.items()},
        share=share_kept(results["vectors"], results["no text"]),
        text_tokens=round(_mean_tokens(ways["text"][1]) - _mean_tokens(examples)),
        soft_tokens=soft,
        first_token={name: _first_token(run, *ways[name]) for name in ("text", "vectors", "no text")},
        seconds=seconds,
        answered=answered,
        samples=shown,
    )


def share_kept(vectors: Evaluation, none: Evaluation, seed: int = 0) -> tuple[float, float, float]:
    """Return 1 - KL with the vectors / KL without the text, and its 95 % bootstrap interval over rows.

    Both are sums over the same tokens. Rows are drawn together, so that the interval is that of the ratio.
    """
    sums = np.array([[r.divergence for r in part.records] for part in (vectors, none)], dtype=np.float64)
    counts = np.random.default_rng(seed).multinomial(
        sums.shape[1], np.full(sums.shape[1], 1 / sums.shape[1]), size=RESAMPLES
    )
    drawn = counts @ sums.T
    low, high = np.percentile(1 - drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    whole = sums.sum(1)
    return float(1 - whole[0] / whole[1]), float(low), float(high)


def _injection(run: Run) -> Injection:
    prepared = run.prepared
    batch = collate(prepared.train[:1], prepared.lm.device)
    with torch.no_grad():
        return injection_for(prepared.lm, prepared.method, batch)


def _with_text(run: Run, text: str, examples: Sequence[Example]) -> list[Example]:
    """Return the examples with another text ahead of their inputs."""
    prepared = run.prepared
    recipe = prepared.recipe
    teacher = recipe.teacher.model_copy(update={"context": text, "file": None})
    encoder = TeacherEncoder(recipe.model_copy(update={"teacher": teacher}), prepared.lm, prepared.prompts)
    inputs = [encoder.encode(e.rendered.row).input_ids for e in examples]
    return [replace(e, input_ids=ids) for e, ids in zip(examples, inputs, strict=True)]


def _through_the_path(
    run: Run, examples: Sequence[Example], beginning: Sequence[int]
) -> tuple[SoftPrompt, list[Example]] | None:
    """Put the whole beginning in as a prefix, untrained; the rest of each input follows it."""
    lm = run.prepared.lm
    if "prefix" in lm.spec.limits or lm.spec.kind != "decoder" or not beginning:
        return None
    layers = lm.kv_of(beginning)
    mask = torch.ones(1, len(beginning), dtype=torch.bool, device=lm.device)
    return Materialised([Injection(kv_before=Prefix(layers, mask))]), [
        replace(e, input_ids=e.input_ids[len(beginning) :]) for e in examples
    ]


def _mean_tokens(examples: Sequence[Example]) -> float:
    return statistics.mean(len(e.input_ids) for e in examples)


def _first_token(run: Run, method: SoftPrompt, examples: Sequence[Example]) -> float:
    """Return the median seconds until the first token of a request, one request at a time."""
    lm, seconds = run.prepared.lm, []
    for example in [examples[0], *examples[:TIMED]]:  # the first warms up
        batch = collate([example], lm.device).with_targets([[0]])
        started = time.perf_counter()
        with torch.no_grad():
            lm.logits(batch, injection_for(lm, method, batch))
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
