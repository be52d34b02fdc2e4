"""The engine and the registry as the HTTP API sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..request import Finished, Request, Token

if TYPE_CHECKING:
    from ...config.schema import Recipe
    from ...data.encode import Encoder
    from ...errors import SoftPromptError


class AnswerStream(Protocol):
    """Tokens as they come, then `Finished`."""

    @property
    def echoed(self) -> tuple[Token, ...]: ...
    def __aiter__(self) -> AsyncIterator[Token | Finished]: ...
    def cancel(self) -> None: ...


class ListedPrompt(Protocol):
    """An artifact that was found, not opened."""

    @property
    def name(self) -> str: ...
    @property
    def modified(self) -> float: ...
    @property
    def prompts(self) -> tuple[str, ...]:
        """Names of those in it; known once it was asked for by its own name."""
        ...

    @property
    def models(self) -> tuple[str, ...]:
        """The names by which its prompts are asked for; of a listing."""
        ...

    @property
    def served(self) -> bool:
        """False where a request for it is known to fail."""
        ...


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
        """How many it has, and how many of them take places of the model's context."""
        ...

    @property
    def outdated(self) -> bool:
        """Whether a newer version is on disk, which cannot be served."""
        ...


class PromptRegistry(Protocol):
    def names(self) -> Iterator[Any]: ...
    def holds(self, name: str) -> bool: ...
    def describe(self, name: str) -> Any: ...
    def get(self, name: str) -> Any: ...


class AnsweringEngine(Protocol):
    def stop(self, *, drain: float = 0) -> None: ...
    def submit(self, request: Request, loaded: Any = None) -> AnswerStream: ...
    def classifying(
        self, prompt: str, rows: Sequence[Any], *, scale: float = 1.0, loaded: Any = None
    ) -> Coroutine[Any, Any, list[dict[str, float]]]:
        """Checks rows and encodes those that are no Example, which blocks; what it gives waits, and holds no
        thread.
        """
        ...

    async def problem(self) -> SoftPromptError | None:
        """Why nothing is answered now; None where all is well. Soon: a probe waits for it."""
        ...

    @property
    def where(self) -> str:
        """The machine that answers, in words; empty where it is this one."""
        ...

    @property
    def capacity(self) -> int:
        """Answers that may be in hand at once."""
        ...

    def numbers(self) -> dict[str, float]: ...
