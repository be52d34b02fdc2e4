"""`teacher.on_policy` also trains on answers that the student writes, scored by the teacher.

A round is `EVERY` steps. Before its first step, the student (the frozen model with the vectors, without the
text) answers a share of the rows that the round reads, drawn by (seed, step). It samples from its whole
distribution. Its answers and the teacher's distributions at their tokens replace the targets of these rows in
the round, as in GKD (Agarwal et al. 2023, arXiv 2306.13649). The inputs stay, and so do their caches.

A round is kept beside the checkpoint, so that a run that was stopped inside of it trains on the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from .._system.files import read_tensors, write_tensors
from ..cache.teacher import TeacherDistributions
from ..data.batching import by_tokens
from ..data.collate import collate
from ..data.example import Example
from ..errors import SoftPromptError
from ..lm.apply import injection_for
from ..lm.generation import answering, tokens_of
from .checkpoint import round_file
from .checkpoint_file import damaged
from .decisive import optimization
from .loop import Backward
from .prepare import Prepared
from .sampler import BatchSampler, row_lengths
from .step import StepPart
from .teachers import inputs_by_prompt

EVERY = 25  # steps of a round
BATCH_TOKENS = 4096  # of inputs and answers in one pass, padding included

Round = dict[str, Tensor]  # rows [R] and lengths [R] of the answers; tokens [T], ids and logprobs [T, k]


def check_writes(run: Prepared) -> None:
    """Raise SoftPromptError where the model cannot write the answers that the recipe asks it for."""
    share, reason = run.recipe.teacher.on_policy, run.lm.spec.limits.get("generate")
    if share and reason:
        raise SoftPromptError(
            f"'{run.lm.name}' cannot answer its training rows (teacher.on_policy={share:g})",
            why=reason,
            fix="teacher.on_policy=0",
        )


def with_answers(
    backward: Backward,
    runs: Sequence[Prepared],
    read: Sequence[Prepared],
    parts: Sequence[StepPart],
    step_of: Callable[[int], int],
) -> Backward:
    """Return `backward` with the student's answers in the rows of the parts whose recipes ask for them.

    `read` are the runs with the rows that their steps read. `step_of` gives the steps that a part has taken.
    """
    answers = {
        i: StudentAnswers(run, rows, part)
        for i, (run, rows, part) in enumerate(zip(runs, read, parts, strict=True))
        if run.recipe.teacher.on_policy
    }

    def answered(chosen: Sequence[tuple[int, list[int]]]) -> Sequence[Tensor]:
        for index, _ in chosen:
            if index in answers:
                answers[index].at(step_of(index))
        return backward(chosen)

    return answered if answers else backward


@final
class StudentAnswers:
    """The answers of one run's student are put into the rows of its part of a step."""

    def __init__(self, run: Prepared, read: Prepared, part: StepPart) -> None:
        self._run, self._part = run, part
        self._numbers = numbers = optimization(run.recipe)
        lengths = row_lengths(read.train, numbers.batch_tokens)
        self._sampler = BatchSampler(lengths, numbers.batch_size, numbers.seed, numbers.batch_tokens)
        self._first: int | None = None  # the step before which the present answers were written

    @cached_property
    def _shown(self) -> list[tuple[tuple[int, int], Example]]:
        """Return the training rows as the teacher reads them, each with the text that it is shown."""
        run = self._run
        return inputs_by_prompt(run.recipe, run.lm, run.prompts, run.train)

    def at(self, step: int) -> None:
        """Put the answers of the round of a step (from 0) into the part.

        Raises SoftPromptError where a run resumes inside a round whose answers are lost.
        """
        first = step - step % EVERY
        if first == self._first:
            return
        file = round_file(Path(self._run.recipe.output) / "checkpoint", first)
        answered = self._run.world.first(lambda: self._new(first, file) if step == first else _read(file))
        self._part.answered.clear()
        self._part.answered.update(self._examples(answered, file))
        self._first = first

    def rows(self, first: int) -> list[int]:
        """Return the numbers of the rows that the student answers before step `first`."""
        steps = range(first, min(first + EVERY, self._numbers.steps))
        rows = sorted({row for step in steps for row in self._sampler.batch(step)})
        count = max(1, round(self._run.recipe.teacher.on_policy * len(rows)))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self._seed(first)))
        return sorted(rows[i] for i in order[:count].tolist())

    def _seed(self, first: int) -> int:
        return self._numbers.seed * 1_000_003 + first

    def _new(self, first: int, file: Path) -> Round:
        rows = self.rows(first)
        written = self._write(rows, self._seed(first))
        scored = self._scored(rows, written)
        answered = {
            "rows": torch.tensor(rows),
            "lengths": torch.tensor([len(ids) for ids in written]),
            "tokens": torch.tensor([token for ids in written for token in ids]),
            "ids": torch.cat([ids for ids, _ in scored]),
            "logprobs": torch.cat([logprobs for _, logprobs in scored]),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(file, answered)
        return answered

    @torch.no_grad()
    def _write(self, rows: Sequence[int], seed: int) -> list[tuple[int, ...]]:
        """Let the student answer rows, up to and with an end token; no column is hidden from it."""
        lm, method, recipe = self._run.lm, self._part.method, self._run.recipe
        most = min(recipe.task.max_new_tokens, recipe.data.max_target_tokens or recipe.task.max_new_tokens)
        examples = [self._part.examples[row] for row in rows]
        lengths = [len(e.input_ids) + self._part.soft_tokens + most for e in examples]
        order = sorted(range(len(rows)), key=lengths.__getitem__)
        options = answering(lm, most, do_sample=True, temperature=1.0, top_p=1.0, top_k=0)
        written: dict[int, tuple[int, ...]] = {}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for places in by_tokens(order, lengths, BATCH_TOKENS):
                batch = collate([examples[i] for i in places], lm.device, targets=False)
                output = lm.generate(batch, injection_for(lm, method, batch), **options)
                for i, ids in zip(places, tokens_of(output).tolist(), strict=True):
                    end = next((n for n, token in enumerate(ids, 1) if token in lm.ends), len(ids))
                    written[i] = tuple(ids[:end])
        return [written[i] for i in range(len(rows))]

    def _scored(self, rows: Sequence[int], written: Sequence[tuple[int, ...]]) -> list[tuple[Tensor, Tensor]]:
        """Return the teacher's distributions at the tokens of answers: ids and log-probabilities [T, k].

        They are not kept in the folder of caches: each is of use in one round.
        """
        lm, known = self._run.lm, dict[int, tuple[Tensor, Tensor]]()
        about: dict[tuple[int, int], list[int]] = {}
        for i, row in enumerate(rows):
            about.setdefault(self._shown[self._place(row)][0], []).append(i)
        for places in about.values():
            examples = [replace(self._shown[self._place(rows[i])][1], target_ids=written[i]) for i in places]
            teacher = TeacherDistributions(lm, examples, self._run.recipe.teacher.top_k)
            lengths = [teacher.tokens(example) for example in examples]
            order = sorted(range(len(places)), key=lengths.__getitem__)
            for batch in by_tokens(order, lengths, BATCH_TOKENS):
                scored = teacher.assemble(teacher.compute([examples[n] for n in batch]))
                known |= {places[n]: row for n, row in zip(batch, scored, strict=True)}
        return [known[i] for i in range(len(rows))]

    def _place(self, row: int) -> int:
        """Return the number of a row among the run's training rows, which `together` repeats."""
        return row % len(self._run.train)

    def _examples(self, answered: Round, file: Path) -> dict[int, Example]:
        rows, lengths = answered["rows"].tolist(), answered["lengths"].tolist()
        if max(rows) >= len(self._part.examples):
            raise damaged(file, "it holds answers to other rows")
        split = (answered[name].split(lengths) for name in ("tokens", "ids", "logprobs"))
        return {
            row: replace(self._part.examples[row], target_ids=tuple(tokens.tolist()), teacher=(ids, logprobs))
            for row, tokens, ids, logprobs in zip(rows, *split, strict=True)
        }


def _read(file: Path) -> Round:
    """Read the answers of a round in which the run was stopped."""
    try:
        answered = read_tensors(file)
    except SoftPromptError as error:
        raise damaged(file, error.why or error.what) from None
    if missing := {"rows", "lengths", "tokens", "ids", "logprobs"} - set(answered):
        raise damaged(file, f"it lacks {', '.join(sorted(missing))}")
    return answered
