"""Prompts of one table learn to be attached together: a row sees its own prompt, and often others too.

Prefixes that were trained alone disturb each other when they are joined, since none was ever seen beside
another. With `train.together: k`, a training row sees its own prompt and up to k - 1 others of a table, in a
random order, joined as `compose --concat` joins them: with one attention sink, and at positions that follow
each other. Its target does not change, so that the others learn not to disturb. Cartridges (Eyuboglu et al.
2025) call this composition; a quarter of the rows see their own prompt alone.

What a row sees is drawn before training, once for each time that it is read, so that nothing is random in a
step and a run resumes exactly.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from ..artifacts.arithmetic import concatenate
from ..artifacts.sinks import one_sink, starts_with_sink
from ..config.schema import Recipe
from ..errors import SoftPromptError
from ..injection import Injection
from ..lm.base import LanguageModel
from ..methods.base import Features, SoftPrompt
from .decisive import optimization, options
from .sampler import BatchSampler, row_lengths

if TYPE_CHECKING:
    from .prepare import Prepared

ALONE = 0.25  # of the rows see their own prompt alone
MOST = 8  # prompts at once with `together: true`


@final
class Together(SoftPrompt):
    """Prompt i is the combination i: the prompts of `table` with these numbers, joined in this order.

    `has_sink` tells whether each prompt starts with the attention sink, of which one is kept.
    """

    def __init__(
        self,
        table: SoftPrompt,
        combinations: Sequence[tuple[int, ...]],
        lm: LanguageModel,
        *,
        has_sink: bool,
        keep_positions: bool = False,
    ) -> None:
        super().__init__()
        self.table, self.combinations = table, tuple(combinations)
        self.num_prompts = len(self.combinations)
        self._lm, self._has_sink, self._keep_positions = lm, has_sink, keep_positions

    def forward(self, prompt_ids: Tensor, inputs: Features | None = None) -> Injection:
        chosen, rows = prompt_ids.unique(return_inverse=True)
        combinations = [self.combinations[i] for i in chosen.tolist()]
        needed = sorted({number for combination in combinations for number in combination})
        table = self.table(torch.tensor(needed, device=prompt_ids.device)).fit(len(needed))
        place = {number: index for index, number in enumerate(needed)}
        joined = [self._joined(table, [place[number] for number in numbers]) for numbers in combinations]
        merged = Injection.cat(joined)
        return merged if len(chosen) == 1 == len(rows) else merged.fit(len(chosen)).select(rows)

    def _joined(self, table: Injection, rows: Sequence[int]) -> Injection:
        parts = [table.select(torch.tensor([row])) for row in rows]
        if self._has_sink:
            parts = one_sink(parts, [True] * len(parts))
        return concatenate(parts, self._lm, keep_positions=self._keep_positions)


def most_at_once(recipe: Recipe, prompts: Sequence[str]) -> int:
    """Return how many prompts a training row may see at once: 1 without `train.together`."""
    wanted = recipe.train.together
    return min(MOST, len(prompts)) if wanted is True else int(wanted or 1)


def check(recipe: Recipe, prompts: Sequence[str], method: SoftPrompt) -> None:
    """Raise SoftPromptError where prompts cannot be trained together as the recipe says."""
    most = most_at_once(recipe, prompts)
    if not recipe.train.together:
        return
    if len(prompts) < 2:
        raise SoftPromptError(
            "train.together needs several prompts",
            why=f"the rows name one: {', '.join(prompts)}",
            fix="give several texts: --document a.md --document b.md; or leave together out",
        )
    check_count(most, prompts)
    if recipe.base.mode != "frozen":
        raise SoftPromptError(
            f"train.together cannot be combined with base.mode={recipe.base.mode}",
            why="prompts that are attached together share one base, which must stay as it is",
            fix="base.mode=frozen",
        )
    if method.hiding is not None:
        raise SoftPromptError(
            "train.together cannot be combined with method.token_dropout",
            why="the columns of prompts that are joined are not those of one prompt",
            fix="method.token_dropout=0",
        )
    check_joins(method, recipe)


def check_count(most: int, prompts: Sequence[str]) -> None:
    """Raise SoftPromptError where there are fewer prompts than are to be seen at once."""
    if most > len(prompts):
        raise SoftPromptError(
            f"{most} prompts cannot be seen at once",
            why=f"there are {len(prompts)}: {', '.join(prompts)}",
            fix=f"train.together={len(prompts)}, or give more texts",
        )


def check_joins(method: SoftPrompt, recipe: Recipe) -> None:
    """Raise SoftPromptError where the method's prompts cannot be joined ahead of an input."""
    name = recipe.method.name
    if method.reads is not None:
        raise SoftPromptError(
            f"prompts of {name} cannot be attached together",
            why="each is generated from the input, and not fixed",
            fix="method=prefix-tuning",
        )
    with torch.no_grad():
        channels = set(method(torch.tensor([0], device=_device(method))).channels())
    if not channels <= {"before", "kv_before"}:
        after = bool(channels & {"after", "kv_after"})
        raise SoftPromptError(
            f"prompts of {name} cannot be attached together"
            + (f" with placement={options(recipe)['placement']}" if after else ""),
            why="they are placed behind the input, and a text that is attached comes ahead of it"
            if after
            else f"{', '.join(sorted(channels)) or 'nothing'} is what they inject, which cannot be joined",
            fix="method.placement=before" if after else "method=prefix-tuning method.placement=before",
        )


def has_sink(recipe: Recipe) -> bool:
    """Return whether the recipe's prompts start with the attention sink (see `artifacts.sinks`)."""
    return starts_with_sink(options(recipe))


def expanded(run: Prepared) -> Prepared:
    """Return the run with its training rows as steps read them: once for each time, with what each sees.

    A run without `train.together` is returned as it is.
    """
    most = most_at_once(run.recipe, run.prompts)
    if most < 2:
        return run
    numbers = optimization(run.recipe)
    sampler = BatchSampler(
        row_lengths(run.train, numbers.batch_tokens), numbers.batch_size, numbers.seed, numbers.batch_tokens
    )
    times = max(1, -(-numbers.steps // sampler.per_epoch))
    draw = random.Random(f"{numbers.seed} together")
    combinations: dict[tuple[int, ...], int] = {(number,): number for number in range(len(run.prompts))}
    rows = []
    for example in run.train * times:
        others = 0 if draw.random() < ALONE else draw.randint(1, most - 1)
        seen = attached(draw, example.prompt, others, len(run.prompts))
        rows.append(replace(example, prompt=combinations.setdefault(seen, len(combinations))))
    return replace(run, train=rows, combinations=tuple(combinations))


def attached(draw: random.Random, prompt: int, others: int, prompts: int) -> tuple[int, ...]:
    """Draw `others` of the other prompts, and the order in which they and `prompt` are attached."""
    chosen = [prompt, *draw.sample([number for number in range(prompts) if number != prompt], others)]
    draw.shuffle(chosen)
    return tuple(chosen)


def method_of(run: Prepared) -> SoftPrompt:
    """Return the method that the run's training rows go through; it shares the parameters of `run.method`."""
    if not run.combinations:
        return run.method
    return Together(run.method, run.combinations, run.lm, has_sink=has_sink(run.recipe))


def _device(method: SoftPrompt) -> torch.device:
    return next((p.device for p in method.parameters()), torch.device("cpu"))
