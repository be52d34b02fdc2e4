"""Do answers obey? Constraints that a program can check, and two prompts at once.

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
from ...evaluation.metrics import Score
from ...methods.base import SoftPrompt
from ...methods.materialised import Materialised, materialise
from ...methods.none import NoPrompt
from .constraints import Constraint
from .outputs import closeness, share, texts, under, written


@dataclass(frozen=True, slots=True)
class Adherence:
    """Shares of answers that satisfy a constraint: all of it, and each of its parts by name."""

    satisfied: Score
    parts: dict[str, Score]


def adherence(
    evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example], constraint: Constraint
) -> Adherence:
    """What is written for each row under its own prompt, held against the constraint.

    Rows of a classification or choice task are answered in free text here, so that `labels` can be broken:
    as many tokens as the longest label has. Raises SoftPromptError for a model that writes no text.
    """
    _must_write(evaluator)
    labelled = all(example.candidates for example in examples)
    said = _beginnings(evaluator, method, examples) if labelled else texts(evaluator, method, examples)
    broken = [constraint.broken(answer, lambda text: _tokens(evaluator, text)) for answer in said]
    parts = {name: share([float(name not in row) for row in broken]) for name in constraint.parts}
    return Adherence(share([float(not row) for row in broken]), parts)


def _beginnings(evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example]) -> list[str]:
    """What is written first: a label where it is one, whatever would follow. No label is trained to end."""
    longest = max(len(ids) for example in examples for ids in example.candidates or ())
    said = []
    for example, ids in zip(
        examples, written(replace(evaluator, max_new_tokens=longest), method, examples), strict=True
    ):
        begun = [own for own in example.candidates or () if ids[: len(own)] == tuple(own)]
        said.append(evaluator.encoder.decode(max(begun, key=len, default=ids)))
    return said


@dataclass(frozen=True, slots=True)
class Composition:
    """Shares of rows whose answer obeys two prompts; the first two with each prompt alone."""

    both: Score  # both prompts, concatenated, and both obeyed
    each: tuple[Score, Score]  # both prompts, concatenated: the first obeyed, the second
    alone: tuple[Score, Score]  # one prompt alone, and that one obeyed


Rule = Constraint | Sequence[Sequence[str]]  # what must hold of an answer, or each row's references


def composition(
    evaluator: Evaluator,
    method: SoftPrompt,
    pair: tuple[int, int],
    examples: Sequence[Example],
    rules: tuple[Rule, Rule],
) -> Composition:
    """Generate under prompts `pair` of `method` at once (`arithmetic.concatenate`, in that order), and alone.

    An answer obeys a prompt where the prompt's constraint holds or, of a prompt with references, where it is
    nearer to them (sentence chrF) than what the plain model answers. Raises SoftPromptError for prompts that
    read the input, those that cannot stand side by side, and a model that writes no text.
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
    apart = [texts(evaluator, static, under(examples, index)) for index in pair]
    plain = texts(evaluator, NoPrompt(1), under(examples, 0))
    each = [_obeyed(evaluator, rule, together, plain) for rule in rules]
    alone = [_obeyed(evaluator, rule, said, plain) for rule, said in zip(rules, apart, strict=True)]
    both = [a and b for a, b in zip(*each, strict=True)]
    return Composition(share(both), (share(each[0]), share(each[1])), (share(alone[0]), share(alone[1])))


def _obeyed(evaluator: Evaluator, rule: Rule, said: Sequence[str], plain: Sequence[str]) -> list[bool]:
    if isinstance(rule, Constraint):
        return [rule.holds(answer, lambda text: _tokens(evaluator, text)) for answer in said]
    return [
        closeness(answer, references) > closeness(before, references)
        for answer, before, references in zip(said, plain, rule, strict=True)
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
