"""What every route needs: an engine and a registry behind their interfaces, and who may use which prompt.

The interfaces are all that the HTTP side knows of them, so another engine may stand behind the same routes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Request as HttpRequest
from fastapi import Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ...errors import SoftPromptError
from ..request import UnknownPrompt
from .errors import ApiError, unknown_model
from .inputs import Inputs
from .keys import ANYBODY, Key, Keys
from .limits import Limits
from .metrics import Metrics
from .protocols import AnsweringEngine, PromptRegistry, ServedPrompt

BEARER = HTTPBearer(auto_error=False)


@dataclass(frozen=True)
class Target:
    """What a request's `model` names: the plain model, or a prompt."""

    name: str
    loaded: ServedPrompt | None = None

    @property
    def prompt(self) -> str | None:
        return None if self.loaded is None else self.name

    @property
    def fingerprint(self) -> str | None:
        return None if self.loaded is None else self.loaded.fingerprint


@dataclass
class Service:
    """One model, its prompts, and the bounds of using them."""

    engine: AnsweringEngine
    registry: PromptRegistry
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
