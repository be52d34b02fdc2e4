"""Does the prompt decide what comes out? The same inputs under each prompt in turn.

Two ways of telling which prompt an output follows, by what the rows allow (docs/measures-control.md):

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
from ...evaluation.metrics import Score
from ...methods.base import SoftPrompt
from .outputs import closeness, likelihoods, share, texts, under, written

How = Literal["references", "likelihood"]
Said = list[list[int | None]]  # by input and prompt given: the prompt whose answer came out


@dataclass(frozen=True, slots=True)
class Swap:
    """`matrix[p][q]`: how often prompt q's answer came out where p was given; `undecided[p]`: nobody's."""

    prompts: tuple[str, ...]
    matrix: list[list[int]]
    undecided: list[int]
    followed: Score  # share of all outputs that follow the prompt given; interval over inputs
    how: How
    inputs: int
    left_out: int  # inputs whose references are the same under two prompts, which tell nothing


def swap(
    evaluator: Evaluator,
    method: SoftPrompt,
    examples: Sequence[Example],
    prompts: Sequence[str] | None = None,
    how: How | None = None,
) -> Swap:
    """Give each input of `examples` each prompt of `method` (of several artifacts: `SideBySide`).

    By references where some input has different ones under two prompts or more, unless `how` says
    otherwise: then such inputs alone count, under the prompts that they have a reference for. Labels and
    choices must be the reference; of texts the sentence chrF to a prompt's references counts. By
    likelihood, every input counts under all prompts; of labels and choices the probability among the
    labels is compared. Ties, and answers that are nobody's, follow no prompt.

    Raises SoftPromptError for fewer than two prompts, tasks whose answer is no text, label or choice, and
    `how="references"` on rows where no input tells prompts apart.
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
            f"a {evaluator.encoder.kind} task has no answers to tell prompts apart by",
            fix="swap prompts of a generation, classification or choice task",
        )
    groups = _by_input(examples)
    shared = [group for group in groups if len({e.prompt for e in group}) > 1]
    telling = [group for group in shared if _distinct(group)]
    if how == "references" and not telling:
        raise SoftPromptError(
            "no input of these rows has references under two prompts that differ",
            why="an output is held against the references that its own input has",
            fix="leave `how` out: outputs are then told apart by their likelihood",
        )
    if telling and how != "likelihood":
        said = _by_references(evaluator, method, telling)
        return _swap(names, said, "references", len(shared) - len(telling))
    firsts = [group[0] for group in groups]
    by = _by_output if evaluator.encoder.kind == "generation" else _by_distribution
    return _swap(names, by(evaluator, method, firsts), "likelihood", 0)


def _by_input(examples: Sequence[Example]) -> list[list[Example]]:
    """Rows of the same tokens and candidates together, in the order in which inputs first occur."""
    groups: dict[object, list[Example]] = {}
    for example in examples:
        groups.setdefault((example.input_ids, example.candidates), []).append(example)
    return list(groups.values())


def _references(group: Sequence[Example]) -> dict[int, list[str]]:
    """An input's references by prompt."""
    found: dict[int, list[str]] = {}
    for example in sorted(group, key=lambda e: e.prompt):
        found.setdefault(example.prompt, []).extend(ref.strip() for ref in example.rendered.references)
    return found


def _distinct(group: Sequence[Example]) -> bool:
    """Whether no reference stands under two prompts."""
    sets = [set(texts) for texts in _references(group).values()]
    return sum(map(len, sets)) == len(set().union(*sets))


def _by_references(evaluator: Evaluator, method: SoftPrompt, groups: Sequence[list[Example]]) -> Said:
    asked = [(i, p) for i, group in enumerate(groups) for p in _references(group)]
    rows = [replace(groups[i][0], prompt=p) for i, p in asked]
    said: Said = [[None] * method.num_prompts for _ in groups]
    generates = evaluator.encoder.kind == "generation"
    answers = texts(evaluator, method, rows) if generates else _labels(evaluator, method, rows)
    for (i, p), answer in zip(asked, answers, strict=True):
        references = _references(groups[i])
        if generates:
            best = _highest([closeness(answer, refs) for refs in references.values()])
            owners = [] if best is None else [list(references)[best]]
        else:
            owners = [q for q, refs in references.items() if answer.strip() in refs]
        said[i][p] = owners[0] if owners else -1
    return said


def _labels(evaluator: Evaluator, method: SoftPrompt, rows: Sequence[Example]) -> list[str]:
    return [r.prediction for r in replace(evaluator, metrics=("accuracy",)).run(method, rows).records]


def _by_output(evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example]) -> Said:
    said: Said = [[] for _ in examples]
    for given in range(method.num_prompts):
        outputs = written(evaluator, method, under(examples, given))
        by_prompt = [
            likelihoods(evaluator.lm, method, under(examples, q), outputs) for q in range(method.num_prompts)
        ]
        for row, scores in zip(said, zip(*by_prompt, strict=True), strict=True):
            best = _highest(scores)
            row.append(-1 if best is None else best)
    return said


def _by_distribution(evaluator: Evaluator, method: SoftPrompt, examples: Sequence[Example]) -> Said:
    plain = replace(evaluator, metrics=("accuracy",))
    runs = [plain.run(method, under(examples, p)).records for p in range(method.num_prompts)]
    said: Said = []
    for records in zip(*runs, strict=True):
        # [prompts, labels]: log-probability among the labels
        scores = torch.tensor([record.scores for record in records], dtype=torch.float64).log_softmax(1)
        best = [_highest(scores[:, label].tolist()) for label in scores.argmax(1).tolist()]
        said.append([-1 if q is None else q for q in best])
    return said


def _highest(values: Sequence[float]) -> int | None:
    """Where the largest stands; None where there are two of it."""
    top = max(values)
    return None if list(values).count(top) > 1 else list(values).index(top)


def _swap(names: tuple[str, ...], said: Said, how: How, left_out: int) -> Swap:
    """None: not asked; -1: undecided."""
    matrix = [[sum(row[p] == q for row in said) for q in range(len(names))] for p in range(len(names))]
    undecided = [sum(row[p] == -1 for row in said) for p in range(len(names))]
    hits = [sum(q == p for p, q in enumerate(row)) for row in said]
    outputs = [sum(q is not None for q in row) for row in said]
    return Swap(names, matrix, undecided, share(hits, outputs), how, len(said), left_out)
