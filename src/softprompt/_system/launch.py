"""This process joins the others that torchrun started with it, as one run.

torchrun tells each process its place in environment variables. Where they are absent, a run is alone.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from ..errors import SoftPromptError
from .progress import Progress, following
from .world import ALONE, Together, World

if TYPE_CHECKING:
    from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

Devices = int | Literal["auto"] | None
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_is_ours = False  # whether the group of the processes was set up here
_groups = 0  # how many were set up here; each process counts the same
TIMEOUT = timedelta(minutes=30)  # of one exchange; a process that ends is noticed at once


def place() -> tuple[int, int]:
    """Return (this process's number, number of processes) as torchrun set them; (0, 1) without torchrun."""
    if not all(os.environ.get(name) for name in VARIABLES):
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def count(devices: Devices) -> int:
    """Return the number of processes that `devices` asks for; "auto" is one for each GPU.

    Raises SoftPromptError for more than there are GPUs. Without a GPU, processes share the processor.
    """
    if devices is None or devices == 1:
        return 1
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if devices == "auto":
        return max(1, gpus)
    if gpus and devices > gpus:
        raise SoftPromptError(
            f"train.devices={devices}, but there {'is 1 GPU' if gpus == 1 else f'are {gpus} GPUs'}",
            why="each process needs a GPU of its own",
            fix=f"train.devices={gpus}, or train.devices=auto",
        )
    return devices


def check_started(devices: Devices) -> None:
    """Raise SoftPromptError where torchrun has not started the processes that `devices` asks for."""
    started = place()[1] > 1
    here = int(os.environ.get("LOCAL_WORLD_SIZE", place()[1])) if started else 1
    if isinstance(devices, int) and devices != here and (started or devices > 1):
        raise SoftPromptError(
            f"train.devices={devices}, but {'torchrun started ' if started else 'this is '}"
            f"{here} process{'es' if here > 1 else ''} on this machine",
            why="a function of Python starts no processes" if not started else "the two must agree",
            fix="leave devices out: torchrun's --nproc-per-node says it"
            if started
            else f"start the script with: torchrun --nproc-per-node {devices} SCRIPT.py; "
            f"or write a recipe, and: softprompt tune recipe.yaml devices={devices}",
        )


@contextlib.contextmanager
def joined(devices: Devices = None) -> Iterator[World]:
    """Yield the world of this run. In all processes but the first, nothing is shown inside.

    `devices=1` stays alone, whatever started the process. A group that the caller has set up is used. One
    that is set up here is kept for later runs; after an exception it is closed, so that the other processes
    do not wait for this one. Raises SoftPromptError where the processes are not those that `devices` asks
    for, and where there is no GPU for this process.
    """
    if devices == 1 or place()[1] == 1:
        if devices != 1 and count(devices) > 1:
            check_started(count(devices))
        yield ALONE
        return
    import torch.distributed as dist

    check_started(devices)
    if not dist.is_initialized():
        _use_own_gpu()
        _begin()
    world = Together()
    with contextlib.ExitStack() as stack:
        if world.rank:
            stack.enter_context(following(_Silent()))
        try:
            yield world
            world.any_of([])  # nobody leaves before all are done
        except BaseException:
            _end()
            raise


def _end() -> None:
    """Close the group that `_begin` set up."""
    global _is_ours
    import torch.distributed as dist

    if _is_ours and dist.is_initialized():
        _is_ours = False
        dist.destroy_process_group()


def _begin() -> None:
    """Set up the group of all processes."""
    global _is_ours, _groups
    import torch
    import torch.distributed as dist

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    rank, size = place()
    try:
        # A group of its own: the addresses of a group that was closed are still in the store.
        whole = _store(*(os.environ[name] for name in VARIABLES))
        store = dist.PrefixStore(f"softprompt/{_groups}", whole)  # pyright: ignore[reportPrivateImportUsage]
        _groups += 1
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise SoftPromptError(
            f"process {rank} of {size} did not reach the others",
            why=f"{str(error).splitlines()[0]} (MASTER_ADDR={os.environ['MASTER_ADDR']}, "
            f"MASTER_PORT={os.environ['MASTER_PORT']})",
            fix="start all processes at the same time, with torchrun; or devices=1 for a run in one process",
        ) from error
    _is_ours = True
    atexit.register(_end)  # NCCL warns of a group that is still open


@functools.cache
def _store(*place: str) -> Store:
    """Return the key-value store of the processes, which stays open until this process ends.

    `place` holds the values of `VARIABLES`. If process 0 closed its store with each group, another process
    that is ahead could begin its next group in the old store, and process 0 would wait for it in a new one.
    """
    from torch.distributed import rendezvous  # pyright: ignore[reportPrivateImportUsage]

    return next(iter(rendezvous("env://", timeout=TIMEOUT)))[0]


def _use_own_gpu() -> None:
    """Choose the GPU of this process, one for each on a machine."""
    import torch

    if not torch.cuda.is_available():
        return
    number, count = int(os.environ.get("LOCAL_RANK", place()[0])), torch.cuda.device_count()
    if number >= count:
        raise SoftPromptError(
            f"there is no GPU for process {number} of this machine",
            why=f"each process needs one, and the machine shows {count}",
            fix=f"--nproc-per-node {count}, or devices={count}",
        )
    torch.cuda.set_device(number)


class _Silent:
    """Follows work and shows nothing."""

    clock = staticmethod(time.monotonic)

    def say(self, text: str) -> None:
        pass

    def begun(self, task: Progress) -> None:
        pass

    def moved(self, task: Progress) -> None:
        pass

    def ended(self, task: Progress) -> None:
        pass
