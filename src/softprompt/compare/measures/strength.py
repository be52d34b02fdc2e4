"""Measures whether a prompt's effect on the likelihood of the targets grows with its strength.

`arithmetic.scale` defines strength; docs/measures-control.md has the other definitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import final

import torch
from torch import Tensor

from ...artifacts.arithmetic import scale
from ...data.example import Example
from ...errors import SoftPromptError
from ...evaluation.evaluator import Evaluator
from ...evaluation.metric_intervals import Score, share
from ...injection import Injection, injection_rows
from ...lm.base import LanguageModel
from ...methods.base import Features, SoftPrompt
from ...methods.materialised import Materialised, materialise
from ...methods.none import NoPrompt

STRENGTHS = (0.0, 0.5, 1.0, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class Dose:
    """The effect that a prompt has at each strength on the likelihood of the targets."""

    strengths: tuple[float, ...]  # ascending
    effect: tuple[float | None, ...]  # nats a token of the targets above the plain model; None: impossible
    refused: tuple[str, ...]  # strengths that are impossible, with the reason
    spearman: float  # of strength and effect, over strengths from 0 to 1; 0 where the effect is constant
    graded: bool  # the effect grows with each strength from 0 to 1
    graded_rows: Score  # share of rows of which that holds
    effect_name: str = "log-probability of the targets above the plain model's, nats a token"


def dose(
    evaluator: Evaluator,
    method: SoftPrompt,
    examples: Sequence[Example],
    strengths: Sequence[float] = STRENGTHS,
    plain: LanguageModel | None = None,
) -> Dose:
    """Score the rows' targets under their own prompts at each strength, as `arithmetic.scale` defines it.

    `plain` is the base before training, if it was trained too (lora, full). At strength 0 only gated adapters
    equal the plain model. Raises SoftPromptError for fewer than two strengths in 0 … 1.
    """
    strengths = sorted(strengths)
    low = [s for s in strengths if 0 <= s <= 1]
    if len(low) < 2:
        raise SoftPromptError(f"strengths {strengths} hold too few from 0 to 1", fix="use 0, 0.5 and 1")
    loss = replace(evaluator, metrics=("perplexity",))
    bare, base = NoPrompt(method.num_prompts), replace(loss, lm=plain or evaluator.lm)
    before = base.run(bare, examples, text_rows=0).records
    gains: dict[float, list[float]] = {}  # of each row, nats
    refused = []
    for strength in strengths:
        try:
            scaled = at_strength(method, strength, evaluator.lm)
            after = loss.run(scaled, examples, text_rows=0).records
        except SoftPromptError as error:
            if strength <= 1:  # only a gate has an upper limit
                raise
            refused.append(f"{strength:g}: {error.what} ({error.why})")
            continue
        gains[strength] = [old.nll - new.nll for old, new in zip(before, after, strict=True)]
    tokens = sum(max(1, record.tokens) for record in before)
    effect = {strength: sum(gain) / tokens for strength, gain in gains.items()}
    curve = [effect[strength] for strength in low]
    graded_rows = share([float(_grows(row)) for row in zip(*(gains[s] for s in low), strict=True)])
    return Dose(
        tuple(strengths),
        tuple(effect.get(strength) for strength in strengths),
        tuple(refused),
        _spearman(low, curve),
        _grows(curve),
        graded_rows,
    )


def at_strength(method: SoftPrompt, strength: float, lm: LanguageModel) -> SoftPrompt:
    """Return the method with its injections scaled; for a generated prompt, those of each row."""
    static = materialise(method)
    if static is None:
        return _Scaled(method, strength, lm)
    with torch.no_grad():
        return Materialised([scale(prompt, strength, lm) for prompt in static.prompts])


@final
class _Scaled(SoftPrompt):
    """A generated prompt whose injection is scaled."""

    def __init__(self, method: SoftPrompt, strength: float, lm: LanguageModel) -> None:
        super().__init__()
        self.method, self.reads, self._strength, self._lm = method, method.reads, strength, lm

    @property
    def num_prompts(self) -> int:
        return self.method.num_prompts

    def forward(self, prompt_ids: Tensor, inputs: Features | None = None) -> Injection:
        injection = self.method(prompt_ids, inputs)
        count = injection_rows(injection)
        rows = [injection.select(torch.tensor([i])) for i in range(count)] if count > 1 else [injection]
        return Injection.cat([scale(row, self._strength, self._lm) for row in rows], [1] * len(rows))


def _spearman(x: Sequence[float], y: Sequence[float]) -> float:
    from scipy.stats import spearmanr

    if len(set(y)) < 2:
        return 0.0
    return float(spearmanr(x, y).statistic)  # type: ignore[attr-defined]


def _grows(values: Sequence[float]) -> bool:
    return len(values) > 1 and all(later > earlier for earlier, later in pairwise(values))
