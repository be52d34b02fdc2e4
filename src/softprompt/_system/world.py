"""The processes that train one prompt together: what is the share of each, and what they agree on.

torchrun starts N processes, which all run the same code on the same rows. A `World` is the only place where
they differ. Every collective call must be made by all processes, in the same order. `ALONE` is the world of a
run in one process: it returns what it is given. This file knows no models, rows or training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final

from ..errors import SoftPromptError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
K = TypeVar("K")
BUCKET = 2**24  # float32 numbers that are summed in one call: 64 MiB


class World(Protocol):
    """Shares work among the processes of a run, and joins their results."""

    rank: int
    size: int

    def share(self, items: Sequence[T], rank: int | None = None) -> list[T]:
        """Return the items of a process, by default of this one; each item belongs to one process."""
        ...

    def joined(self, results: Mapping[K, T]) -> dict[K, T]:
        """Return the results of all processes."""
        ...

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in place; computed in float32."""
        ...

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """Return for each flag whether it is set in any process."""
        ...

    def first(self, function: Callable[[], T]) -> T:
        """Call the function in process 0 alone; its result, or its exception, is that of every process."""
        ...

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """Give each tensor the numbers that it has in process 0, in place."""
        ...


@final
class Alone:
    """A run in one process has this world."""

    rank, size = 0, 1

    def share(self, items: Sequence[T], rank: int | None = None) -> list[T]:
        return list(items)

    def joined(self, results: Mapping[K, T]) -> dict[K, T]:
        return dict(results)

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        pass

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        return list(flags)

    def first(self, function: Callable[[], T]) -> T:
        return function()

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        pass


ALONE = Alone()


@final
class Together:
    """The world of several processes, over `torch.distributed`'s default group.

    Numbers travel by the group's backend (gloo on CPUs, NCCL on GPUs), everything else on the CPU.
    """

    def __init__(self) -> None:
        import torch.distributed as dist

        self.rank, self.size, self._dist = dist.get_rank(), dist.get_world_size(), dist

    def share(self, items: Sequence[T], rank: int | None = None) -> list[T]:
        # by stride: a batch is sorted by length, so that the shares are of about the same cost
        return list(items[self.rank if rank is None else rank :: self.size])

    def joined(self, results: Mapping[K, T]) -> dict[K, T]:
        parts: list[Any] = [None] * self.size
        self._collective(lambda: self._dist.all_gather_object(parts, dict(results)))
        return {key: value for part in parts for key, value in part.items()}

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        import torch

        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in bucket])
            self._collective(lambda flat=flat: self._dist.all_reduce(flat))
            sums = flat.split([tensor.numel() for tensor in bucket])
            for tensor, total in zip(bucket, sums, strict=True):
                tensor.detach().copy_(total.view_as(tensor))

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        parts: list[Any] = [None] * self.size
        self._collective(lambda: self._dist.all_gather_object(parts, list(flags)))
        return [any(column) for column in zip(*parts, strict=True)]

    def first(self, function: Callable[[], T]) -> T:
        outcome: list[Any] = [None, None]
        if self.rank == 0:
            try:
                outcome[0] = function()
            except Exception as error:
                outcome[1] = error
        self._collective(lambda: self._dist.broadcast_object_list(outcome, src=0))
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            self._collective(lambda tensor=tensor: self._dist.broadcast(tensor.detach(), src=0))

    def _collective(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except RuntimeError as error:  # its text is the backend's: a connection was closed, or no answer came
            raise LostProcess(
                "a process of this run ended before the others",
                why=f"{_reason(error)}; it was killed, or reported an error of its own",
                fix="run the same command again: it resumes from the last checkpoint",
            ) from error


class LostProcess(SoftPromptError):
    """Another process of the run has ended, so that this one cannot continue."""


def _reason(error: RuntimeError) -> str:
    """Return the backend's reason: without the place in its source, and without its advice."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text.rpartition("] ")[2].partition(". ")[0] if text.startswith("[/") else text.partition(". ")[0]


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors in groups of about `BUCKET` numbers on one device."""
    bucket: list[Tensor] = []
    count = 0
    for tensor in tensors:
        if bucket and (count + tensor.numel() > BUCKET or tensor.device != bucket[0].device):
            yield bucket
            bucket, count = [], 0
        bucket.append(tensor)
        count += tensor.numel()
    if bucket:
        yield bucket
