"""Many prompts in one run, as `softprompt.tuning.tune_many` trains them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from softprompt.learner import Learner
from softprompt.lm.base import LanguageModel
from softprompt.lm.context import Context
from softprompt.steps import Part, Steps
from softprompt.train import DevScore, fit_together, named_parameters

from .ours import Block, Ours, plain


class _Repeated:
    """The cache of rows that all prompts share, as that of each prompt's, one after another."""

    def __init__(self, run: Ours) -> None:
        assert run.cache is not None
        self._cache, self._count, self.bytes = run.cache, len(run.rows), run.cache.bytes

    def __len__(self) -> int:
        return self._count

    def context(self, indices: Sequence[int], lm: LanguageModel) -> Context:
        return self._cache.context([index % self._count for index in indices], lm)


def train(runs: Sequence[Ours], rows: Sequence[Sequence[int]], steps: int, batch: int) -> list[Block]:
    """Train every prompt on its own rows, all in one run, each as `Ours.train(rows, steps, batch)` would.

    All share the base model and the cache of the rows. The blocks' seconds are those of the whole run.
    """
    first, losses = runs[0], [[] for _ in runs]
    parts, learners = [], []
    for run, chosen in zip(runs, rows, strict=True):
        run.reset()
        lengths = [len(run.rows[i].input_ids) for i in chosen]
        inputs = round(batch * sum(lengths) / len(lengths))
        targets = round(batch * sum(len(run.rows[i].target_ids) for i in chosen) / len(lengths))
        parts.append(Part(run.method, run.rows, run.mode == "full", targets, inputs))
        parameters = named_parameters(run.lm, run.method)
        learners.append(Learner(parameters, lengths, lambda: DevScore((0.0,), "", 0.0), plain(steps, batch)))
    side_by_side = Steps(first.lm, parts, _Repeated(first))

    def losses_of(group: Sequence[tuple[int, list[int]]]) -> list:
        found = side_by_side.losses([(index, [rows[index][i] for i in own]) for index, own in group])
        for (index, _), loss in zip(group, found, strict=True):
            losses[index].append(loss.detach())
        return found

    started = time.perf_counter()
    fit_together(learners, losses_of, groups=side_by_side.groups)
    seconds = time.perf_counter() - started
    return [Block(seconds, [loss.item() for loss in own]) for own in losses]
