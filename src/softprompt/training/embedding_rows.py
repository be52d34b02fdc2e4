"""Runs of an embedding task that would learn nothing, or another thing than they say, are refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from .._system.world import World
from ..config.schema import Recipe
from ..data.example import Example
from ..errors import SoftPromptError


def check_recipe(recipe: Recipe, world: World) -> None:
    """Raise SoftPromptError for an embedding task whose steps several processes would share."""
    if recipe.task.kind == "embedding" and world.size > 1:
        raise SoftPromptError(
            f"an embedding task is trained by one process, and this run has {world.size}",
            why="a query is compared with all documents of its step, which the processes would split",
            fix="start it without torchrun",
        )


def check(recipe: Recipe, train: Sequence[Example]) -> None:
    """Raise SoftPromptError where no query of a step has a document that does not fit it."""
    if recipe.task.kind != "embedding" or recipe.task.score is not None or not train:
        return
    if any(len(example.documents) > 1 for example in train):
        return
    why = "a query is compared with the other rows' documents, and no row brings negatives of its own"
    if recipe.train.batch_size == 1:
        raise SoftPromptError(
            "a step of one row has no negatives",
            why=why,
            fix="train.batch_size=32, or rows with a list of `negatives`",
        )
    rows = Counter(example.prompt for example in train)
    texts = {(example.prompt, example.documents[0]) for example in train}
    documents = Counter(prompt for prompt, _ in texts)
    if single := [prompt for prompt in rows if documents[prompt] < 2]:
        raise SoftPromptError(
            f"{len(single)} of {len(rows)} prompts have one document alone, so that no query has a negative"
            if len(rows) > 1
            else "the training rows have one document alone, so that no query has a negative",
            why=why,
            fix="add rows with other documents, or a list of `negatives` to the rows",
        )
