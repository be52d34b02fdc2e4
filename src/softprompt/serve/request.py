"""What the HTTP side asks of the engine, and what comes back. Knows nothing of either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ..errors import SoftPromptError


class Busy(SoftPromptError):
    """The queue is full; `retry_after` seconds may help."""

    def __init__(self, what: str, why: str = "", fix: str = "", retry_after: float = 1.0) -> None:
        super().__init__(what, why, fix)
        self.retry_after = retry_after


class Stopped(SoftPromptError):
    """The engine takes no more requests."""


class UnknownPrompt(SoftPromptError):
    """No artifact of that name."""


class BrokenPrompt(SoftPromptError):
    """An artifact that cannot be served."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen."""

    max_tokens: int = 16
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    min_tokens: int = 0
    ignore_eos: bool = False


@dataclass(frozen=True)
class Request:
    """One row: its prompt, its input and how it is sampled."""

    prompt: str | None
    input_ids: tuple[int, ...]
    sampling: Sampling
    echo: bool = False
    scale: float = 1.0


@dataclass(frozen=True)
class Token:
    """One token of an answer (or, echoed, of the input)."""

    id: int
    text: str
    logprob: float | None = None
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True)
class Finished:
    """The end of an answer."""

    reason: Literal["stop", "length", "cancelled", "error"]
    error: SoftPromptError | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    prompt_vectors: int = 0
