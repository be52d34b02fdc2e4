"""These interfaces are all that the HTTP API knows of an engine and a registry."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..names import Entry
from ..request import Finished, Request, Token

if TYPE_CHECKING:
    from ...config.schema import Recipe
    from ...data.encode import Encoder
    from ...errors import SoftPromptError


class AnswerStream(Protocol):
    """Yields tokens as they arrive, then `Finished`."""

    @property
    def echoed(self) -> tuple[Token, ...]: ...
    def __aiter__(self) -> AsyncIterator[Token | Finished]: ...
    def cancel(self) -> None: ...


class ServedPrompt(Protocol):
    """An artifact that was opened and verified; `index` is the prompt's number in it."""

    @property
    def encoder(self) -> Encoder: ...
    @property
    def recipe(self) -> Recipe: ...
    @property
    def method_name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def vectors(self) -> tuple[int, int]:
        """The number of its vectors, and how many of them take places of the model's context."""
        ...

    @property
    def outdated(self) -> bool:
        """True means that a newer version is on disk, which cannot be served."""
        ...


class PromptRegistry(Protocol):
    def names(self) -> Iterator[Entry]: ...
    def holds(self, name: str) -> bool: ...
    def describe(self, name: str) -> Entry: ...
    def get(self, name: str) -> Any: ...


class AnsweringEngine(Protocol):
    def stop(self, *, drain: float = 0) -> None: ...
    def submit(self, request: Request, loaded: Any = None) -> AnswerStream: ...
    def classifying(
        self, prompt: str, rows: Sequence[Any], *, scale: float = 1.0, loaded: Any = None
    ) -> Coroutine[Any, Any, list[dict[str, float]]]:
        """Check the rows and encode those that are no Example, which blocks.

        The coroutine waits for the scores without holding a thread.
        """
        ...

    async def problem(self) -> SoftPromptError | None:
        """Return why nothing is answered now, or None. Returns soon, since a probe waits for it."""
        ...

    @property
    def where(self) -> str:
        """The name of the machine that answers; empty where it is this process."""
        ...

    @property
    def capacity(self) -> int:
        """The number of answers that may run or wait at once."""
        ...

    def numbers(self) -> dict[str, float]: ...
