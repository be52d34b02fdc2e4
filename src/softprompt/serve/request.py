"""What is asked of the engine, what comes back, and the errors in between.

This file knows nothing of HTTP, and nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ..errors import SoftPromptError

Reason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. `temperature` 0 is greedy; the same `seed` gives the same answer."""

    max_tokens: int = 16
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    seed: int | None = None  # None: drawn anew
    stop: tuple[str, ...] = ()
    logprobs: int | None = None  # that many of the likeliest beside each token's own; None: none at all
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0  # of tokens in the input or the answer; 1: none
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    min_tokens: int = 0  # before which neither an end token nor a stop string ends the answer
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One answer that is wanted."""

    prompt: str | None  # the artifact's name in the registry; None: the plain model
    input_ids: tuple[int, ...]  # the rendered input, real tokens alone
    sampling: Sampling = Sampling()
    echo: bool = False  # log-probabilities of the input's own tokens are wanted
    scale: float = 1.0  # strength of the injection, as `arithmetic.scale` means it; 0: the plain model
    text: str | None = None  # the rendered input, for a prefix model with an encoder of its own
    continues: bool = False  # the answer goes on in the input's text; else it is a text of its own
    group: object = None  # the same for answers that were asked for at once: a failure of them is logged once


@dataclass(frozen=True, slots=True)
class Token:
    """One token. `text` is what it completes: '' within a character, or held back for a stop string.

    Log-probabilities are the model's own, before temperature, penalties and bias.
    """

    id: int
    text: str
    logprob: float | None = None
    top: tuple[tuple[int, str, float], ...] = ()
    length: int | None = None  # characters that it completes, whatever is held back; None: those of `text`

    @property
    def completes(self) -> int:
        """Characters of the text that end with this token."""
        return len(self.text) if self.length is None else self.length


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer; `error` where `reason` is "error"."""

    reason: Reason
    error: SoftPromptError | None
    input_tokens: int
    output_tokens: int
    prompt_vectors: int  # soft tokens and prefix columns


class InvalidRequest(SoftPromptError):
    """A request that this model or this engine can never answer. `code` names the reason for programs."""

    code: ClassVar[str | None] = None


class NotScored(InvalidRequest):
    """Log-probabilities of an input under a prompt that has no part in them."""

    code = "input_not_scored"


class ContextExceeded(InvalidRequest):
    """Input and answer together are longer than the model's context."""

    code = "context_length_exceeded"


class TooLarge(InvalidRequest):
    """A request that is more than something on its way takes."""


class ModelFailed(SoftPromptError):
    """The model failed on a request. The log says where and why."""


class UnknownPrompt(SoftPromptError):
    """No artifact of that name."""


class BrokenPrompt(SoftPromptError):
    """An artifact that cannot be served: damaged, not finite, or made for another base."""


class Stopped(SoftPromptError):
    """The engine takes no more requests."""


class Busy(SoftPromptError):
    """No room now. `retry_after` seconds from now there may be."""

    def __init__(self, what: str, why: str = "", fix: str = "", *, retry_after: float = 1.0) -> None:
        super().__init__(what, why, fix)
        self.retry_after = retry_after


class EngineBusy(Busy):
    """The same of an engine on another machine, in its own words."""


class EngineFailed(SoftPromptError):
    """An engine on another machine did not answer as it must."""


class EngineAway(EngineFailed):
    """It is not there, or takes nothing now. `retry_after` seconds from now it may."""

    def __init__(self, what: str, why: str = "", fix: str = "", *, retry_after: float = 5.0) -> None:
        super().__init__(what, why, fix)
        self.retry_after = retry_after
