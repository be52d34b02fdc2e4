"""Requests to an engine, the tokens that it returns, and its errors. Nothing here knows HTTP or models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ..errors import SoftPromptError

Reason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings by which tokens are chosen. `temperature` 0 is greedy; equal seeds give equal answers."""

    max_tokens: int = 16
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    seed: int | None = None  # None: a random one
    stop: tuple[str, ...] = ()
    logprobs: int | None = None  # so many of the likeliest besides each token's own; None: none
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0  # for tokens in the input or the answer; 1: none
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    min_tokens: int = 0  # no end token or stop string ends the answer before
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """A request asks for one answer."""

    prompt: str | None  # the artifact's name in the registry; None: the plain model
    input_ids: tuple[int, ...]  # the rendered input, without vectors
    sampling: Sampling = Sampling()
    echo: bool = False  # compute log-probabilities of the input's own tokens too
    scale: float = 1.0  # strength of the prompt, see `arithmetic.scale`; 0: the plain model
    text: str | None = None  # the rendered input, for a prefix model with a separate encoder
    continues: bool = False  # the answer continues the input's text, as a completion does
    group: object = None  # equal for the answers of one HTTP request, so that their failure is logged once


@dataclass(frozen=True, slots=True)
class Token:
    """A token with the text that it completes: '' within a character, or while a stop string may begin.

    Log-probabilities are the model's, before temperature, penalties and bias.
    """

    id: int
    text: str
    logprob: float | None = None
    top: tuple[tuple[int, str, float], ...] = ()
    length: int | None = None  # characters that it completes, held back or not; None: those of `text`

    @property
    def completes(self) -> int:
        return len(self.text) if self.length is None else self.length


@dataclass(frozen=True, slots=True)
class Finished:
    """Ends an answer; `error` is set where `reason` is "error"."""

    reason: Reason
    error: SoftPromptError | None
    input_tokens: int
    output_tokens: int
    prompt_vectors: int  # soft tokens and prefix columns


class InvalidRequest(SoftPromptError):
    """A request that this model or this engine can never answer. Programs read the reason from `code`."""

    code: ClassVar[str | None] = None


class NotScored(InvalidRequest):
    """Log-probabilities of an input were requested under a prompt that does not affect them."""

    code = "input_not_scored"


class ContextExceeded(InvalidRequest):
    """Input and answer together are longer than the model's context."""

    code = "context_length_exceeded"


class TooLarge(InvalidRequest):
    """A request that is larger than a server on its way accepts."""


class ModelFailed(SoftPromptError):
    """The model failed on a request. The log says where and why."""


class UnknownPrompt(SoftPromptError):
    """No artifact has the requested name."""


class BrokenPrompt(SoftPromptError):
    """An artifact cannot be served: it is damaged, not finite, or made for another base."""


class Stopped(SoftPromptError):
    """The engine accepts no more requests."""


class Busy(SoftPromptError):
    """There is no room for the request now; retry after `retry_after` seconds."""

    def __init__(self, *words: str, retry_after: float = 1.0, **parts: str) -> None:
        super().__init__(*words, **parts)
        self.retry_after = retry_after


class EngineBusy(Busy):
    """An engine on another machine reported that it is busy."""


class EngineFailed(SoftPromptError):
    """An engine on another machine failed, or broke its protocol."""


class EngineAway(EngineFailed):
    """An engine cannot be reached, or accepts no requests now; retry after `retry_after` seconds."""

    def __init__(self, *words: str, retry_after: float = 5.0, **parts: str) -> None:
        super().__init__(*words, **parts)
        self.retry_after = retry_after
