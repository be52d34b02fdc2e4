"""It is measured how much of a text's effect is kept when its prompt is attached together with others'.

A row is answered with the prompt of its own text and k - 1 others of the table, drawn by seed, in a random
order, joined as `compose --concat` joins them. Its teacher reads its own text alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from .. import methods
from ..data.example import Example
from ..errors import SoftPromptError
from ..evaluation.evaluator import Evaluator
from ..evaluation.records import Evaluation
from ..lm.base import LanguageModel
from ..methods.base import Setting, SoftPrompt
from ..training.together import Together, attached
from .measure import share_kept

Share = tuple[float, float, float]  # of the text's effect, with its 95 % interval
COUNTS = (1, 2, 4, 8)  # prompts at once that are measured


@dataclass(frozen=True)
class Attached:
    """The prompts of several texts, and rows to measure on, each of which names its text's prompt."""

    lm: LanguageModel
    table: SoftPrompt
    names: tuple[str, ...]
    examples: Sequence[Example]  # with the distributions of their teachers
    evaluator: Evaluator
    has_sink: bool
    seed: int = 0

    def share_with(self, k: int, *, keep_sinks: bool = False, keep_positions: bool = False) -> Share:
        """Return the share of the texts' effect that is kept with `k` prompts attached, with its interval.

        `keep_sinks` and `keep_positions` leave out what `compose --concat` does, for comparing.
        Raises SoftPromptError for more prompts than there are.
        """
        return share_kept(self.scores(k, keep_sinks=keep_sinks, keep_positions=keep_positions), self._plain)

    def scores(
        self, k: int, *, keep_sinks: bool = False, keep_positions: bool = False, text_rows: int | None = 0
    ) -> Evaluation:
        """Return the evaluation of the rows with `k` prompts attached.

        `text_rows` of them are answered freely too; None is all.
        """
        if not 1 <= k <= len(self.names):
            raise SoftPromptError(
                f"{k} prompts cannot be attached at once",
                why=f"there are {len(self.names)}: {', '.join(self.names)}",
                fix=f"a number from 1 to {len(self.names)}",
            )
        draw = random.Random(f"{self.seed} with {k}")
        chosen = [attached(draw, e.prompt, k - 1, len(self.names)) for e in self.examples]
        combinations = list(dict.fromkeys(chosen))
        joined = Together(
            self.table,
            combinations,
            self.lm,
            has_sink=self.has_sink and not keep_sinks,
            keep_positions=keep_positions,
        )
        number = {combination: i for i, combination in enumerate(combinations)}
        rows = [replace(e, prompt=number[seen]) for e, seen in zip(self.examples, chosen, strict=True)]
        return self.evaluator.run(joined, rows, text_rows=text_rows)

    def plain(self, examples: Sequence[Example], *, text_rows: int | None = None) -> Evaluation:
        """Return the evaluation of rows without vectors, whatever text is ahead of them."""
        return self.evaluator.run(
            methods.build("none", Setting(self.lm, self.names)), examples, text_rows=text_rows
        )

    @cached_property
    def _plain(self) -> Evaluation:
        return self.plain(self.examples, text_rows=0)
