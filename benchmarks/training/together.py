"""The one place that knows how many prompts are trained in one run."""

from __future__ import annotations

from collections.abc import Sequence

from softprompt.errors import SoftPromptError

from .ours import Block, Ours


class NotThere(SoftPromptError):
    """This library trains one prompt a run."""


def train(runs: Sequence[Ours], rows: Sequence[Sequence[int]], steps: int, batch: int) -> list[Block]:
    """Train every prompt on its own rows, all in one run, each as `Ours.train(rows, steps, batch)` would.

    All share the base model and the cache. The blocks' seconds are those of the whole run.
    """
    raise NotThere(
        f"{len(runs)} prompts cannot be trained in one run yet",
        why="softprompt.train.fit takes one method",
        fix="train them one after another",
    )
