"""The processes of one run check that they train the same thing, and the first one writes files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from .._system.run_lock import held
from .._system.world import World
from ..config.identity import Identity, differences
from ..config.schema import Recipe
from ..errors import SoftPromptError
from ..lm import sharded
from ..lm.base import LanguageModel


def check_shard(recipe: Recipe, world: World, *, is_loaded: bool) -> None:
    """Raise SoftPromptError where the base of a recipe cannot be split over the processes of this run."""
    if world.size == 1:
        raise sharded.alone()
    trained = f"base.mode={recipe.base.mode}" if recipe.base.mode == "full" else ""
    if recipe.task.needs_head:
        trained = f"task.kind={recipe.task.kind} with a head"
    if trained or is_loaded:
        raise SoftPromptError(
            "train.shard=true splits a base model that stays frozen and is loaded by this run",
            why=f"{trained} trains weights of the base itself"
            if trained
            else "this one is loaded already, whole",
            fix="leave train.shard out, or base.mode=lora" if trained else "give the model's name",
        )
    if recipe.model.device_map is not None or recipe.model.quantization is not None:
        key = "device_map" if recipe.model.device_map is not None else "quantization"
        raise SoftPromptError(
            f"train.shard=true and model.{key} exclude each other",
            why="FSDP2 places the weights itself, in the precision that they have in a product",
            fix=f"leave out one of them (model.{key} without train.shard keeps a whole copy in each process)",
        )


def check_lockstep(lm: LanguageModel) -> None:
    """Raise SoftPromptError where the rows decide how often the model runs, for a base that is split."""
    if lm.spec.batching != "any":
        raise SoftPromptError(
            f"'{lm.name}' cannot be split over devices",
            why="its rows of different lengths run apart, so that the devices would not run it equally often",
            fix="leave train.shard out: then each device holds the whole model",
        )


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
