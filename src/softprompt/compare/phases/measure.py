"""Measures control and serving of a final prompt. A measure that does not apply is skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from ...config.schema import Recipe
from ...data.example import Example
from ...data.sources import read_rows
from ...data.split import limit_rows
from ...errors import SoftPromptError
from ...evaluation.evaluator import Evaluator, evaluator_of
from ...evaluation.leakage import leakage
from ...evaluation.metric_intervals import Score
from ...lm.base import LanguageModel
from ...methods.materialised import materialise
from ..measures.adherence import adherence, composition
from ..measures.constraints import Constraint
from ..measures.cost import added_tokens
from ..measures.latency import serving
from ..measures.prompt_swap import swap
from ..measures.strength import dose
from ..records.store import Folder
from ..records.types import Result
from ..trials import Trial
from .model_pool import kept
from .score import opened

CONTROL = ("swap", "dose", "leakage", "composition", "adherence")


class _Prompt:
    """The prompt of a final trial, with what the measures need of it."""

    def __init__(self, trial: Trial, folder: Folder) -> None:
        about = trial.about
        self.lm, self.method, self.encoder, self.recipe = opened(folder, about["final"])
        rows = read_rows(folder.rows("test"), split="test")
        rows = limit_rows(rows, about["rows"], self.recipe.train.seed)
        self.examples: Sequence[Example] = self.encoder.encode_rows(rows)
        self.evaluator: Evaluator = evaluator_of(self.recipe, self.lm, self.encoder)
        self.constraint = about["constraint"]
        self.plain = _plain(self.recipe)


def measure(trial: Trial, folder: Folder) -> Result:
    """Measure what the trial names: `control` lines, `serving`, and the reasons of those that are refused."""
    prompt = _Prompt(trial, folder)
    refused: dict[str, dict[str, str]] = {}

    def measured(name: str, function: Callable[[_Prompt], dict[str, Any]]) -> dict[str, Any] | None:
        try:
            return function(prompt)
        except SoftPromptError as error:
            refused[name] = {"what": error.what, "why": error.why, "fix": error.fix}
            return None

    control = [
        {"measure": name, **line}
        for name in trial.about["control"]
        if (line := measured(name, _MEASURES[name])) is not None
    ]
    served = measured("serving", _serving) if trial.about["serving"] else None
    return {"status": "done", "error": None, "control": control, "serving": served, "refused": refused}


def _plain(recipe: Recipe) -> LanguageModel | None:
    """Load the base as it was, if training changed it."""
    if recipe.base.mode == "frozen" or recipe.task.needs_head:
        return None
    frozen = recipe.model_copy(update={"base": type(recipe.base)()})
    return kept(frozen)


def _value(score: Score, **detail: Any) -> dict[str, Any]:
    return {"value": score.value, "low": score.low, "high": score.high, "detail": {"n": score.n, **detail}}


def _swap(p: _Prompt) -> dict[str, Any]:
    result = swap(p.evaluator, p.method, p.examples, p.encoder.prompts)
    about = {name: getattr(result, name) for name in ("matrix", "undecided", "inputs", "left_out")}
    return _value(result.followed, prompts=list(result.prompts), how=result.rule, **about)


def _dose(p: _Prompt) -> dict[str, Any]:
    static = materialise(p.method)
    if static is not None and not any(prompt.channels() for prompt in static.prompts):
        raise SoftPromptError(
            "its strength cannot be changed", "nothing is injected: the base was trained", "leave dose out"
        )
    result = dose(p.evaluator, p.method, p.examples, plain=p.plain)
    detail = {
        "strengths": list(result.strengths),
        "effect": list(result.effect),
        "effect_name": result.effect_name,
        "refused": list(result.refused),
        "graded": result.graded,
        "graded_rows": asdict(result.graded_rows),
    }
    return {"value": result.spearman, "low": None, "high": None, "detail": detail}


def _leakage(p: _Prompt) -> dict[str, Any]:
    result = leakage(p.lm, p.method, plain=p.plain)
    return _value(result.change, tokens=result.change.n, chunks=result.chunks, plain=result.plain)


def _composition(p: _Prompt) -> dict[str, Any]:
    """Measure the first two prompts, on inputs that have references under both."""
    if p.method.num_prompts < 2:
        raise SoftPromptError("there is one prompt alone", "composition takes two")
    by_input: dict[tuple[int, ...], dict[int, Example]] = {}
    for example in p.examples:
        by_input.setdefault(example.input_ids, {})[example.prompt] = example
    pairs = [by_prompt for by_prompt in by_input.values() if {0, 1} <= by_prompt.keys()]
    if not pairs:
        raise SoftPromptError(
            "no test input has references under the first two prompts",
            "only the references of both show whether an answer obeys both",
        )
    references = [[pair[prompt].rendered.references for pair in pairs] for prompt in (0, 1)]
    inputs = [pair[0] for pair in pairs]
    result = composition(p.evaluator, p.method, (0, 1), inputs, (references[0], references[1]))
    return _value(
        result.both,
        prompts=list(p.encoder.prompts[:2]),
        each=[asdict(score) for score in result.each],
        alone=[asdict(score) for score in result.alone],
    )


def _adherence(p: _Prompt) -> dict[str, Any]:
    if p.constraint is None:
        raise SoftPromptError("no constraint is named", "adherence is to one", "compare.constraint={…}")
    constraint = Constraint.parse(p.constraint, p.encoder.labels)
    result = adherence(p.evaluator, p.method, p.examples, constraint)
    parts = {name: asdict(score) for name, score in result.parts.items()}
    return _value(result.satisfied, constraint=str(constraint), parts=parts)


def _serving(p: _Prompt) -> dict[str, Any]:
    timed = serving(p.lm, p.method, p.examples, plain=p.plain)
    mixed = timed.mixed_tokens_per_second
    return {
        "time_to_first_token_ms": timed.first_token_ms.median,
        "plain_time_to_first_token_ms": timed.plain_first_token_ms.median,
        "tokens_per_second": timed.tokens_per_second.median,
        "mixed_tokens_per_second": None if mixed is None else mixed.median,
        "plain_tokens_per_second": timed.plain_tokens_per_second.median,
        "added_tokens": added_tokens(p.lm, p.method, p.examples).soft_tokens,
        "detail": asdict(timed),
    }


_MEASURES: dict[str, Callable[[_Prompt], dict[str, Any]]] = {
    "swap": _swap,
    "dose": _dose,
    "leakage": _leakage,
    "composition": _composition,
    "adherence": _adherence,
}
