"""Every route needs these: an engine and a registry behind their interfaces, and who may use which prompt.

The HTTP side knows only the interfaces, so another engine can serve the same routes.
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
from . import request_record
from .errors import ApiError, unknown_model
from .inputs import Inputs
from .keys import ANYBODY, Key, Keys
from .limits import Limits
from .metrics import Metrics
from .protocols import AnsweringEngine, PromptRegistry, ServedPrompt

BEARER = HTTPBearer(auto_error=False)


@dataclass(frozen=True)
class Target:
    """The model that a request names: the plain model, or a prompt."""

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
    """One model, its prompts, and the limits of requests."""

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
        """Load the prompt, which blocks. Raises 404 for one that is unknown, or hidden from this key."""
        if name == self.model_name:
            if not key.base:
                raise ApiError(403, "This key may not use the base model.", param="model", code="forbidden")
            if self.registry.holds(name):
                raise ApiError(400, _ambiguous(name), param="model", code="ambiguous_model")
            request_record.answered_by(name)
            return Target(name)
        if not key.allows(name.partition(":")[0]):
            raise unknown_model(name)
        try:
            target = Target(name, self.registry.get(name))
        except UnknownPrompt:
            raise self._unknown(name) from None
        request_record.answered_by(name)
        return target

    def _unknown(self, name: str) -> ApiError:
        """Return the error, which says to name one prompt where the name is an artifact's with several."""
        try:
            held = self.registry.describe(name).prompts
        except UnknownPrompt:
            return unknown_model(name)
        if len(held) < 2:
            return unknown_model(name)
        message = f"`{name}` has {len(held)} prompts: name one, such as `{name}:{held[0]}`."
        return ApiError(400, message, param="model", code="several_prompts")


def _ambiguous(name: str) -> str:
    return f"`{name}` is the base model's name and, since the server started, a prompt's: rename the prompt."


def _caller(keys: Keys | None) -> Callable[..., None]:
    def anybody(http: HttpRequest) -> None:
        http.state.key = ANYBODY

    def known(
        http: HttpRequest, given: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
    ) -> None:
        if given is None:
            raise ApiError(401, "No API key: send `Authorization: Bearer KEY`.", code="missing_api_key")
        try:
            key = keys.find(given.credentials) if keys else None
        except SoftPromptError:  # its text is about the file, and goes to the log alone
            message = "The server cannot read its file of keys, so it accepts no key now."
            raise ApiError(503, message, code="keys_unreadable", retry_after=5) from None
        if key is None:
            raise ApiError(401, "The API key is unknown.", code="invalid_api_key")
        http.state.key = key

    return known if keys else anybody
