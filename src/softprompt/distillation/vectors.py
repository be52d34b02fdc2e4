"""Several numbers of vectors are trained side by side in one run; the fewest that do are kept.

The candidates share the model, the rows and the teacher's distributions. Each is scored by the share of the
text's effect that it keeps on the dev rows. The smallest whose share is within the 95 % interval of the best
one is kept; the others stay in `OUTPUT-distill/vectors-N`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import methods
from ..config.schema import Recipe
from ..errors import SoftPromptError
from ..evaluation.evaluator import evaluator_of
from ..lm.base import LanguageModel
from ..methods.base import Setting
from ..training.prepare import Prepared, prepare
from ..training.run import Hooks, Run
from ..training.tune import tune_many
from .measure import share_kept
from .output import keep_beside, saved_as, setting_of
from .recipe import with_one_trained
from .seeds import finite_of

AUTO = "auto"
LENGTH = "method.length"
CANDIDATES = (1, 4, 16, 64, 256)


@dataclass(frozen=True)
class Point:
    """Hold a number of vectors, and the share of the text's effect that they keep on the dev rows."""

    vectors: int
    share: tuple[float, float, float]  # with its 95 % interval
    steps: int
    folder: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def is_auto(recipe: Recipe) -> bool:
    """Return whether the recipe leaves the number of vectors open (`length: auto`)."""
    return recipe.method.options().get("length") == AUTO


def with_length(recipe: Recipe, length: int) -> Recipe:
    """Return the recipe with so many vectors. A single vector is trained, so that none is kept as it was."""
    method = type(recipe.method)(name=recipe.method.name, **{**recipe.method.options(), "length": length})
    return with_one_trained(recipe.model_copy(update={"method": method}))


def lengths_for(tokens: int) -> list[int]:
    """Return the numbers of vectors that are tried for a text of so many tokens."""
    return [n for n in CANDIDATES if n <= tokens] or [1]


def as_kept(recipe: Recipe) -> Recipe:
    """Return the recipe with the number of vectors that its output folder holds, or with the default."""
    length = setting_of(Path(recipe.output), LENGTH)
    return with_length(recipe, length if length in CANDIDATES else 64)


def smallest(points: Sequence[Point]) -> Point:
    """Return the point with the fewest vectors whose share is within the interval of the best share."""
    best = max(points, key=lambda point: point.share[0])
    return min((p for p in points if p.share[0] >= best.share[1]), key=lambda point: point.vectors)


def train_candidates(
    recipe: Recipe,
    lengths: Sequence[int],
    *,
    seconds: float | None,
    lm: LanguageModel,
    rows: Sequence[Mapping[str, Any]],
    dev_rows: Sequence[Mapping[str, Any]],
    check: Callable[[Prepared], None],
    hooks: Hooks,
    restart: bool = False,
    overwrite: bool = False,
) -> tuple[list[Run], list[Point]]:
    """Train so many vectors each, and return the kept run, as a list, and all points.

    After `seconds` of training all end where they are. `check` is called with
    what was prepared first. Raises SoftPromptError where no loss is finite.
    """
    folder = Path(recipe.output)
    prepared: list[Prepared] = []
    for length in lengths:
        place = {"output": str(_place(folder, length))}
        of_length = with_length(recipe, length).model_copy(update=place)
        prepared.append(prepare(of_length, lm=lm, rows=rows, dev_rows=dev_rows))
        if length == lengths[0]:
            check(prepared[0])
    if not (restart or overwrite) and (length := setting_of(folder, LENGTH)) in lengths:
        keep_beside(folder, _place(folder, length), prepared[lengths.index(length)])
    hooks = replace(hooks)
    if seconds is not None:
        end = time.monotonic() + seconds
        hooks.is_pruned = lambda learner: time.monotonic() > end
    runs = tune_many(prepared, hooks=hooks, restart=restart, overwrite=overwrite, text_rows=0)
    finite = finite_of(runs)
    hooks.stage("measuring each number of vectors on the dev rows")
    points = _points(finite)
    chosen = smallest(points)
    kept = finite[points.index(chosen)]
    return [saved_as(kept, folder, LENGTH, restart=restart, overwrite=overwrite)], points


def _place(folder: Path, length: int) -> Path:
    """Return the folder of one number of vectors, beside the output folder."""
    return Path(f"{folder}-distill") / f"vectors-{length}"


def check_time(seconds: float | None, *, auto: bool, seeds: int | None) -> None:
    """Raise SoftPromptError for a time without `auto`, and for several seeds with it."""
    if seconds is not None and not auto:
        raise SoftPromptError(
            "a time is given for one number of vectors",
            why="it is the time in which several numbers of vectors are tried",
            fix="--vectors auto (vectors='auto' in Python), or train.steps=N for a shorter training",
        )
    if auto and seeds not in (None, 1):
        raise SoftPromptError(
            f"{seeds} seeds cannot be trained with vectors=auto",
            why="each number of vectors is trained with one seed",
            fix="leave seeds out; then train the number that was kept with several",
        )


def _points(runs: Sequence[Run]) -> list[Point]:
    first = runs[0].prepared
    evaluator = replace(evaluator_of(first.recipe, first.lm, first.encoder), metrics=("kl",))
    plain = evaluator.run(methods.build("none", Setting(first.lm, first.prompts)), first.dev, text_rows=0)
    points = []
    for run in runs:
        scored = evaluator.run(run.prepared.method, run.prepared.dev, text_rows=0)
        length = int(run.prepared.recipe.method.options()["length"])
        points.append(Point(length, share_kept(scored, plain), run.outcome.step, str(run.artifact.path)))
    return points
