"""Rows are given the distributions of their teacher: the frozen model that reads a text ahead of each input.

The teacher sees the rows' inputs behind its text (see `teacher_encoder`), and the rows' targets. Its
distributions are computed once and kept in the folder of caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from .._system.progress import task
from ..cache import disk_store
from ..cache.folders import cache_place
from ..cache.kv import beginning
from ..cache.teacher import TeacherDistributions
from ..config.schema import Recipe
from ..data.example import Example
from ..lm.base import LanguageModel
from .teacher_encoder import TeacherEncoder


def taught(
    recipe: Recipe, lm: LanguageModel, prompts: Sequence[str], parts: Sequence[Sequence[Example]]
) -> tuple[list[list[Example]], tuple[int, ...]]:
    """Return the examples of each part with their teacher's distributions, and the text's tokens.

    The tokens are what the inputs of the teacher all begin with; of a document that is shown in chunks, what
    those about one chunk begin with.
    """
    encoder = TeacherEncoder(recipe, lm, prompts)
    shown_rows = [shown(encoder, part) for part in parts]
    about: dict[int, list[Example]] = {}
    for chunk, example in (row for part in shown_rows for row in part):
        about.setdefault(chunk, []).append(example)
    rows = {}
    with task("the teacher's distributions", sum(map(len, about.values()))) as progress:
        done = 0
        for chunk in sorted(about):
            known = distributions(recipe, lm, about[chunk], lambda n, _, before=done: progress.at(before + n))
            done += len(about[chunk])
            progress.at(done)
            rows |= {id(e): teacher for e, teacher in zip(about[chunk], known, strict=True)}
    return [
        [replace(example, teacher=rows[id(e)]) for example, (_, e) in zip(part, known, strict=True)]
        for part, known in zip(parts, shown_rows, strict=True)
    ], beginning([e.input_ids for e in max(about.values(), key=len)])


def distributions(
    recipe: Recipe,
    lm: LanguageModel,
    examples: Sequence[Example],
    progress: disk_store.Progress | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Return the plain model's distributions at each example's target: ids [T, k] and log-probabilities
    [T, k].

    They are kept in the folder of caches. What all inputs begin with is computed once.
    """
    kept = TeacherDistributions(lm, examples, recipe.teacher.top_k)
    store = disk_store.open_or_build(cache_place(recipe), kept, examples, progress=progress)
    return kept.assemble([store.row(kept.name(example)) for example in examples])


def shown(encoder: TeacherEncoder, examples: Sequence[Example]) -> list[tuple[int, Example]]:
    """Return rows as the teacher reads them, each after the number of the chunk that it is shown.

    Their targets are the student's to the token.
    """
    return [
        (
            0 if encoder.is_whole else encoder.chunk_of(example.rendered.row),
            replace(encoder.encode(example.rendered.row), target_ids=example.target_ids),
        )
        for example in examples
    ]
