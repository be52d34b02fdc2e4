"""Scores of the dev rows: of a run while it trains, and of the plain model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import methods
from ..cache import InputCache
from ..evaluation.evaluator import Evaluator
from ..evaluation.records import DevScore, Evaluation, dev_key
from ..methods.base import Setting
from .prepare import Prepared


@dataclass
class DevScorer:
    """Scores a run's dev rows, and keeps the evaluation of the best state."""

    evaluator: Evaluator
    run: Prepared
    cache: InputCache
    _best: tuple[DevScore, Evaluation] | None = None

    def __call__(self) -> DevScore:
        evaluation = self._evaluate(text_rows=0)
        dev = dev_key(evaluation)
        if self._best is None or dev.key > self._best[0].key:
            self._best = dev, evaluation
        return dev

    def of_best(self, key: tuple[float, ...] | None, text_rows: int) -> Evaluation:
        """Return the evaluation of the method as it is now, the state that scored `key`.

        The rows are scored again only where the kept evaluation does not do: a resumed run may have been
        better before it was stopped, and texts are not generated while training.
        """
        is_written = self.run.recipe.task.kind == "generation" and text_rows > 0
        if self._best is not None and self._best[0].key == key and not is_written:
            return self._best[1]
        return self._evaluate(text_rows)

    def _evaluate(self, text_rows: int) -> Evaluation:
        return self.evaluator.run(self.run.method, self.run.dev, cache=self.cache, text_rows=text_rows)


def plain_evaluations(scorers: Sequence[DevScorer], text_rows: int) -> list[Evaluation]:
    """Evaluate the plain model on the dev rows of each run; runs with the same rows share an evaluation."""
    shared: dict[tuple[int, tuple[str, ...], int], Evaluation] = {}
    evaluations = []
    for scorer in scorers:
        run, evaluator = scorer.run, scorer.evaluator
        key = id(run.dev), evaluator.metrics, evaluator.max_new_tokens
        if key not in shared:
            plain = methods.build("none", Setting(run.lm, run.prompts))
            rows, cache = run.dev, scorer.cache
            if any(example.begin for example in rows):
                rows, cache = [example.begun() for example in rows], None
            shared[key] = evaluator.run(plain, rows, cache=cache, text_rows=text_rows)
        evaluations.append(shared[key])
    return evaluations
