"""What every route needs: an engine and a registry behind their interfaces, and who may use which prompt.

The interfaces are all that the HTTP side knows of them, so another engine may stand behind the same routes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from fastapi import Request as HttpRequest
from fastapi import Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ...api import Tuned
from ...errors import SoftPromptError
from ..request import Finished, Request, Token, UnknownPrompt
from .errors import ApiError, unknown_model
from .inputs import Inputs
from .keys import ANYBODY, Key, Keys
from .limits import Limits
from .metrics import Metrics

BEARER = HTTPBearer(auto_error=False)


class Answer(Protocol):
    """Tokens as they come, then `Finished`."""

    @property
    def echoed(self) -> tuple[Token, ...]: ...
    def __aiter__(self) -> AsyncIterator[Token | Finished]: ...
    def cancel(self) -> None: ...


class Entry(Protocol):
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


class Loaded(Protocol):
    """An artifact that was opened and verified; `index` is the prompt's number in it."""

    @property
    def tuned(self) -> Tuned: ...
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


class Registry(Protocol):
    def names(self) -> Iterator[Any]: ...
    def holds(self, name: str) -> bool: ...
    def describe(self, name: str) -> Any: ...
    def get(self, name: str) -> Any: ...


class Engine(Protocol):
    def stop(self, *, drain: float = 0) -> None: ...
    def submit(self, request: Request, loaded: Any = None) -> Answer: ...
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


@dataclass(frozen=True)
class Target:
    """What a request's `model` names: the plain model, or a prompt."""

    name: str
    loaded: Loaded | None = None

    @property
    def prompt(self) -> str | None:
        return None if self.loaded is None else self.name

    @property
    def fingerprint(self) -> str | None:
        return None if self.loaded is None else self.loaded.fingerprint


@dataclass
class Service:
    """One model, its prompts, and the bounds of using them."""

    engine: Engine
    registry: Registry
    model_name: str
    inputs: Inputs
    limits: Limits
    keys: Keys | None
    metrics: Metrics
    stopping: bool = False
    caller: Callable[..., None] = field(init=False)  # a dependency that sets `request.state.key`

    def __post_init__(self) -> None:
        self.caller = _caller(self.keys)

    def target(self, name: str, key: Key) -> Target:
        """Blocking: the prompt is loaded. Raises 404 for one that is unknown, or not this key's to know."""
        if name == self.model_name:
            if not key.base:
                raise ApiError(403, "This key may not use the base model.", param="model", code="forbidden")
            if self.registry.holds(name):
                raise ApiError(400, _twofold(name), param="model", code="ambiguous_model")
            return Target(name)
        if not key.allows(name.partition(":")[0]):
            raise unknown_model(name)
        try:
            return Target(name, self.registry.get(name))
        except UnknownPrompt:
            raise self._unknown(name) from None

    def _unknown(self, name: str) -> ApiError:
        """Of a folder with several prompts it is said that one is to be named."""
        try:
            held = self.registry.describe(name).prompts
        except UnknownPrompt:
            return unknown_model(name)
        if len(held) < 2:
            return unknown_model(name)
        message = f"`{name}` holds {len(held)} prompts: name one, as `{name}:{held[0]}`."
        return ApiError(400, message, param="model", code="several_prompts")


def _twofold(name: str) -> str:
    return f"`{name}` is the base model's name and, since the server started, a prompt's: rename the prompt."


def _caller(keys: Keys | None) -> Callable[..., None]:
    """Whose request it is."""

    def anybody(http: HttpRequest) -> None:
        http.state.key = ANYBODY

    def known(
        http: HttpRequest, given: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
    ) -> None:
        if given is None:
            raise ApiError(401, "No API key: send `Authorization: Bearer KEY`.", code="missing_api_key")
        try:
            key = keys.find(given.credentials) if keys else None
        except SoftPromptError:  # what it says of the file is the operator's to read, in the log
            message = "The server cannot read its keys: nobody is let in until it can."
            raise ApiError(503, message, code="keys_unreadable", retry_after=5) from None
        if key is None:
            raise ApiError(401, "The API key is not known.", code="invalid_api_key")
        http.state.key = key

    return known if keys else anybody
