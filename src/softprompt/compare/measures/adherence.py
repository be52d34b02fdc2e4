"""Measures whether answers satisfy constraints that a program can check, also under two prompts at once.

Definitions are in docs/measures-control.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ...artifacts.arithmetic import concatenate
from ...data.example import Example
from ...errors import SoftPromptError
from ...evaluation.evaluator import Evaluator
from ...evaluation.metric_intervals import Score, share
from ...methods.base import SoftPrompt
from ...methods.materialised import Materialised, materialise
from ...methods.none import NoPrompt
from .constraints import Constraint
from .outputs import closeness, texts, under, written


@dataclass(frozen=True, slots=True)
class Adherence:
    """The shares of answers that satisfy a constraint: all of it, and each of its parts by name."""

    satisfied: Score
    parts: dict[str, Score]


def adherence(
    evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example], constraint: Constraint
) -> Adherence:
    """Generate an answer to each row under its own prompt, and check the constraint.

    Rows of a classification or choice task are answered in free text, with as many tokens as the longest
    label has, so that `labels` can be broken. Raises SoftPromptError for a model that writes no text.
    """
    _must_write(evaluator)
    labelled = all(example.candidates for example in examples)
    answers = (_beginnings if labelled else texts)(evaluator, method, examples)
    broken = [constraint.broken(answer, lambda text: _tokens(evaluator, text)) for answer in answers]
    parts = {name: share([float(name not in row) for row in broken]) for name in constraint.parts}
    return Adherence(share([float(not row) for row in broken]), parts)


def _beginnings(evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example]) -> list[str]:
    """Return each answer's beginning: the label that it begins with, since labels are not trained to end."""
    longest = max(len(ids) for example in examples for ids in example.candidates or ())
    answers = []
    for example, ids in zip(
        examples, written(replace(evaluator, max_new_tokens=longest), method, examples), strict=True
    ):
        labels = [label for label in example.candidates or () if ids[: len(label)] == tuple(label)]
        answers.append(evaluator.encoder.decode(max(labels, key=len, default=ids)))
    return answers


@dataclass(frozen=True, slots=True)
class Composition:
    """The shares of rows whose answer obeys both of two prompts, each of them, and each prompt when alone."""

    both: Score  # both prompts, concatenated, and both obeyed
    each: tuple[Score, Score]  # both prompts, concatenated: the first obeyed, the second
    alone: tuple[Score, Score]  # one prompt alone, and that one obeyed


Rule = Constraint | Sequence[Sequence[str]]  # a constraint on the answer, or each row's references


def composition(
    evaluator: Evaluator,
    method: SoftPrompt,
    pair: tuple[int, int],
    examples: Sequence[Example],
    rules: tuple[Rule, Rule],
) -> Composition:
    """Generate under both prompts `pair` of `method` (`arithmetic.concatenate`, in that order), and alone.

    An answer obeys a prompt if it satisfies the prompt's constraint or, for a prompt with references, if it
    is nearer to them (sentence chrF) than the plain model's answer. Raises SoftPromptError for prompts that
    read the input, those that cannot be concatenated, and a model that generates no text.
    """
    _must_write(evaluator)
    static = materialise(method)
    if static is None:
        raise SoftPromptError(
            "generated prompts cannot be concatenated",
            why="they hold no fixed vectors",
            fix="use static ones",
        )
    first, second = (static.prompts[index] for index in pair)
    with torch.no_grad():
        joint = concatenate([first, second], evaluator.lm)
    together = texts(evaluator, Materialised([joint]), under(examples, 0))
    single = [texts(evaluator, static, under(examples, index)) for index in pair]
    plain = texts(evaluator, NoPrompt(1), under(examples, 0))
    each = [_obeyed(evaluator, rule, together, plain) for rule in rules]
    alone = [_obeyed(evaluator, rule, answers, plain) for rule, answers in zip(rules, single, strict=True)]
    both = [a and b for a, b in zip(*each, strict=True)]
    return Composition(share(both), (share(each[0]), share(each[1])), (share(alone[0]), share(alone[1])))


def _obeyed(evaluator: Evaluator, rule: Rule, answers: Sequence[str], plain: Sequence[str]) -> list[bool]:
    if isinstance(rule, Constraint):
        return [rule.holds(answer, lambda text: _tokens(evaluator, text)) for answer in answers]
    return [
        closeness(answer, references) > closeness(before, references)
        for answer, before, references in zip(answers, plain, rule, strict=True)
    ]


def _tokens(evaluator: Evaluator, text: str) -> int:
    return len(evaluator.lm.text_ids(text))


def _must_write(evaluator: Evaluator) -> None:
    if evaluator.lm.answers != "next":
        raise SoftPromptError(
            "this model writes no text",
            why="it fills in masks or reads its answers off a head, so its answers are always labels",
            fix="measure constraints on a model that generates",
        )
