"""A final prompt's control and serving; a measure that cannot be had is left out with its reason."""

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
from ...evaluation.metrics import Score
from ...lm.base import LanguageModel
from ...methods.materialised import materialise
from ..measures.adherence import adherence, composition
from ..measures.constraints import Constraint
from ..measures.cost import added_tokens
from ..measures.latency import serving
from ..measures.leakage import leakage
from ..measures.prompt_swap import swap
from ..measures.strength import dose
from ..model_pool import kept
from ..store import Folder
from ..trials import Trial
from .score import opened

CONTROL = ("swap", "dose", "leakage", "composition", "adherence")


class _Prompt:
    """What the measures look at."""

    def __init__(self, trial: Trial, folder: Folder) -> None:
        self.lm, self.method, self.encoder, self.recipe = opened(folder, trial.about["final"])
        rows = read_rows(folder.rows("test"), split="test")
        rows = limit_rows(rows, trial.about["rows"], self.recipe.train.seed)
        self.examples: Sequence[Example] = self.encoder.encode_rows(rows)
        self.evaluator: Evaluator = evaluator_of(self.recipe, self.lm, self.encoder)
        self.constraint = trial.about["constraint"]
        self.plain = _plain(self.recipe)


def measure(trial: Trial, folder: Folder) -> dict[str, Any]:
    """The record: `control` lines, `serving`, and what could not be measured and why."""
    prompt = _Prompt(trial, folder)
    control, refused = [], {}
    for name in trial.about["control"]:
        try:
            control.append({"measure": name, **_MEASURES[name](prompt)})
        except SoftPromptError as error:
            refused[name] = {"what": error.what, "why": error.why, "fix": error.fix}
    served = None
    if trial.about["serving"]:
        try:
            served = _serving(prompt)
        except SoftPromptError as error:
            refused["serving"] = {"what": error.what, "why": error.why, "fix": error.fix}
    return {"status": "done", "error": None, "control": control, "serving": served, "refused": refused}


def _plain(recipe: Recipe) -> LanguageModel | None:
    """The base as it was, where training changed it."""
    if recipe.base.mode == "frozen" or recipe.task.needs_head:
        return None
    frozen = recipe.model_copy(update={"base": type(recipe.base)()})
    return kept(frozen)


def _value(score: Score, **detail: Any) -> dict[str, Any]:
    return {"value": score.value, "low": score.low, "high": score.high, "detail": {"n": score.n, **detail}}


def _swap(p: _Prompt) -> dict[str, Any]:
    found = swap(p.evaluator, p.method, p.examples, p.encoder.prompts)
    about = {name: getattr(found, name) for name in ("matrix", "undecided", "how", "inputs", "left_out")}
    return _value(found.followed, prompts=list(found.prompts), **about)


def _dose(p: _Prompt) -> dict[str, Any]:
    static = materialise(p.method)
    if static is not None and not any(prompt.channels() for prompt in static.prompts):
        raise SoftPromptError(
            "there is no dose of it", "nothing is injected: the base itself was trained", "leave dose out"
        )
    found = dose(p.evaluator, p.method, p.examples, plain=p.plain)
    detail = {
        "strengths": list(found.strengths),
        "effect": list(found.effect),
        "effect_name": found.effect_name,
        "refused": list(found.refused),
        "graded": found.graded,
        "graded_rows": asdict(found.graded_rows),
    }
    return {"value": found.spearman, "low": None, "high": None, "detail": detail}


def _leakage(p: _Prompt) -> dict[str, Any]:
    found = leakage(p.lm, p.method, plain=p.plain)
    detail = {"tokens": found.change.n, "chunks": found.chunks, "plain": found.plain}
    return _value(found.change, **detail)


def _composition(p: _Prompt) -> dict[str, Any]:
    """The first two prompts, on inputs that have references under both."""
    if p.method.num_prompts < 2:
        raise SoftPromptError("there is one prompt alone", "composition takes two")
    by_input: dict[tuple[int, ...], dict[int, Example]] = {}
    for example in p.examples:
        by_input.setdefault(example.input_ids, {})[example.prompt] = example
    pairs = [found for found in by_input.values() if {0, 1} <= found.keys()]
    if not pairs:
        raise SoftPromptError(
            "no test input has references under the first two prompts",
            "an answer that obeys both is told by the references of both",
        )
    references = [[found[p].rendered.references for found in pairs] for p in (0, 1)]
    found = composition(
        p.evaluator, p.method, (0, 1), [found[0] for found in pairs], (references[0], references[1])
    )
    return _value(
        found.both,
        prompts=list(p.encoder.prompts[:2]),
        each=[asdict(score) for score in found.each],
        alone=[asdict(score) for score in found.alone],
    )


def _adherence(p: _Prompt) -> dict[str, Any]:
    if p.constraint is None:
        raise SoftPromptError("no constraint is named", "adherence is to one", "compare.constraint={…}")
    constraint = Constraint.parse(p.constraint, p.encoder.labels)
    found = adherence(p.evaluator, p.method, p.examples, constraint)
    parts = {name: asdict(score) for name, score in found.parts.items()}
    return _value(found.satisfied, constraint=str(constraint), parts=parts)


def _serving(p: _Prompt) -> dict[str, Any]:
    found = serving(p.lm, p.method, p.examples, plain=p.plain)
    mixed = found.mixed_tokens_per_second
    return {
        "time_to_first_token_ms": found.first_token_ms.median,
        "plain_time_to_first_token_ms": found.plain_first_token_ms.median,
        "tokens_per_second": found.tokens_per_second.median,
        "mixed_tokens_per_second": None if mixed is None else mixed.median,
        "plain_tokens_per_second": found.plain_tokens_per_second.median,
        "added_tokens": added_tokens(p.lm, p.method, p.examples).soft_tokens,
        "detail": asdict(found),
    }


_MEASURES: dict[str, Callable[[_Prompt], dict[str, Any]]] = {
    "swap": _swap,
    "dose": _dose,
    "leakage": _leakage,
    "composition": _composition,
    "adherence": _adherence,
}
