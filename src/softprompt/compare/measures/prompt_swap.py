"""Measures whether the prompt decides the output: the same inputs under each prompt in turn.

One of two rules decides which prompt an output follows (docs/measures-control.md):

    references   inputs that have targets under several prompts: the prompt whose reference is nearest
    likelihood   no input is shared: the prompt under which the model gives the output the highest probability
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from ...data.example import Example
from ...errors import SoftPromptError
from ...evaluation.evaluator import Evaluator
from ...evaluation.metric_intervals import Score, share
from ...methods.base import SoftPrompt
from .outputs import closeness, likelihoods, texts, under, written

Rule = Literal["references", "likelihood"]
Followed = list[list[int | None]]  # by input and prompt given: the prompt that the answer follows
UNDECIDED = -1  # the answer follows no prompt, or several


@dataclass(frozen=True, slots=True)
class Swap:
    """`matrix[p][q]` counts the outputs under prompt p that follow prompt q, `undecided[p]` the others."""

    prompts: tuple[str, ...]
    matrix: list[list[int]]
    undecided: list[int]
    followed: Score  # share of all outputs that follow the prompt given; interval over inputs
    rule: Rule
    inputs: int
    left_out: int  # inputs whose references are the same under two prompts, which show nothing


def swap(
    evaluator: Evaluator,
    method: SoftPrompt,
    examples: Sequence[Example],
    prompts: Sequence[str] | None = None,
    rule: Rule | None = None,
) -> Swap:
    """Give each input of `examples` each prompt of `method` (of several artifacts: `SideBySide`).

    By default the rule is `references` if some input has different ones under two prompts or more. Then only
    such inputs count, under the prompts that they have a reference for. Labels and choices must equal the
    reference; texts are compared by sentence chrF to a prompt's references. By `likelihood`, every input
    counts under all prompts; for labels and choices the probability among the labels is compared. Ties, and
    answers that equal no prompt's reference, follow no prompt.

    Raises SoftPromptError for fewer than two prompts, tasks whose answer is no text, label or choice, and
    the rule `references` on rows where no input distinguishes prompts.
    """
    names = tuple(prompts or map(str, range(method.num_prompts)))
    if len(names) < 2 or len(names) != method.num_prompts:
        raise SoftPromptError(
            f"prompts cannot be swapped: {method.num_prompts} of them, {len(names)} names",
            why="swapping gives one prompt's input to another prompt",
            fix="train several prompts (data.prompt_field), or put several artifacts side by side",
        )
    if evaluator.encoder.kind not in ("generation", "classification", "choice"):
        raise SoftPromptError(
            f"a {evaluator.encoder.kind} task has no answers that distinguish prompts",
            fix="swap prompts of a generation, classification or choice task",
        )
    groups = _by_input(examples)
    shared = [group for group in groups if len({e.prompt for e in group}) > 1]
    telling = [group for group in shared if _distinct(group)]
    if rule == "references" and not telling:
        raise SoftPromptError(
            "no input of these rows has references under two prompts that differ",
            why="an output is compared with the references of its own input",
            fix="leave `rule` out: outputs are then compared by their likelihood",
        )
    if telling and rule != "likelihood":
        followed = _by_references(evaluator, method, telling)
        return _swap(names, followed, "references", len(shared) - len(telling))
    firsts = [group[0] for group in groups]
    by = _by_output if evaluator.encoder.kind == "generation" else _by_distribution
    return _swap(names, by(evaluator, method, firsts), "likelihood", 0)


def _by_input(examples: Sequence[Example]) -> list[list[Example]]:
    """Group rows of the same tokens and candidates, in the order in which inputs first occur."""
    groups: dict[object, list[Example]] = {}
    for example in examples:
        groups.setdefault((example.input_ids, example.candidates), []).append(example)
    return list(groups.values())


def _references(group: Sequence[Example]) -> dict[int, list[str]]:
    """Return an input's references by prompt."""
    references: dict[int, list[str]] = {}
    for example in sorted(group, key=lambda e: e.prompt):
        references.setdefault(example.prompt, []).extend(ref.strip() for ref in example.rendered.references)
    return references


def _distinct(group: Sequence[Example]) -> bool:
    """Return whether no two prompts share a reference."""
    sets = [set(texts) for texts in _references(group).values()]
    return sum(map(len, sets)) == len(set().union(*sets))


def _by_references(evaluator: Evaluator, method: SoftPrompt, groups: Sequence[list[Example]]) -> Followed:
    pairs = [(i, p) for i, group in enumerate(groups) for p in _references(group)]
    rows = [replace(groups[i][0], prompt=p) for i, p in pairs]
    followed: Followed = [[None] * method.num_prompts for _ in groups]
    generates = evaluator.encoder.kind == "generation"
    answers = texts(evaluator, method, rows) if generates else _labels(evaluator, method, rows)
    for (i, p), answer in zip(pairs, answers, strict=True):
        references = _references(groups[i])
        if generates:
            best = _highest([closeness(answer, refs) for refs in references.values()])
            followed[i][p] = best if best == UNDECIDED else list(references)[best]
        else:
            followed[i][p] = next((q for q, refs in references.items() if answer.strip() in refs), UNDECIDED)
    return followed


def _labels(evaluator: Evaluator, method: SoftPrompt, rows: Sequence[Example]) -> list[str]:
    return [r.prediction for r in replace(evaluator, metrics=("accuracy",)).run(method, rows).records]


def _by_output(evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example]) -> Followed:
    followed: Followed = [[] for _ in examples]
    for given in range(method.num_prompts):
        outputs = written(evaluator, method, under(examples, given))
        by_prompt = [
            likelihoods(evaluator.lm, method, under(examples, q), outputs) for q in range(method.num_prompts)
        ]
        for row, scores in zip(followed, zip(*by_prompt, strict=True), strict=True):
            row.append(_highest(scores))
    return followed


def _by_distribution(evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example]) -> Followed:
    plain = replace(evaluator, metrics=("accuracy",))
    runs = [plain.run(method, under(examples, p)).records for p in range(method.num_prompts)]
    followed: Followed = []
    for records in zip(*runs, strict=True):
        # [prompts, labels]: log-probability among the labels
        scores = torch.tensor([record.scores for record in records], dtype=torch.float64).log_softmax(1)
        followed.append([_highest(scores[:, label].tolist()) for label in scores.argmax(1).tolist()])
    return followed


def _highest(values: Sequence[float]) -> int:
    """Return the index of the largest value; UNDECIDED if it occurs twice."""
    top = max(values)
    return UNDECIDED if list(values).count(top) > 1 else list(values).index(top)


def _swap(names: tuple[str, ...], followed: Followed, rule: Rule, left_out: int) -> Swap:
    """Count the outputs; None is a prompt that an input was not given."""
    numbers = range(len(names))
    matrix = [[sum(row[p] == q for row in followed) for q in numbers] for p in numbers]
    undecided = [sum(row[p] == UNDECIDED for row in followed) for p in numbers]
    hits = [sum(q == p for p, q in enumerate(row)) for row in followed]
    outputs = [sum(q is not None for q in row) for row in followed]
    return Swap(names, matrix, undecided, share(hits, outputs), rule, len(followed), left_out)
