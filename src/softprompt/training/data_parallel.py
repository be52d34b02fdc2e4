"""The processes of one run check that they train the same thing, and the first one writes files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from .._system.run_lock import held
from .._system.world import World
from ..config.identity import Identity, differences
from ..errors import SoftPromptError


@contextlib.contextmanager
def held_by_first(world: World, folders: Sequence[Path]) -> Iterator[None]:
    """Let process 0 hold the folders' locks; where it cannot, every process raises its SoftPromptError."""
    with contextlib.ExitStack() as stack:
        world.first(lambda: stack.enter_context(held(folders)))
        yield


def check_same(world: World, identity: Identity) -> None:
    """Raise SoftPromptError where this process would train something else than process 0."""
    first = world.first(lambda: identity)
    if changes := differences(first, identity):
        raise SoftPromptError(
            f"process {world.rank} would train something else than process 0",
            why="; ".join(changes),
            fix="give all processes the same recipe, files and model: on each machine, or in a shared folder",
        )
