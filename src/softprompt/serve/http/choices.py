"""The answers of one request: its fields become requests to the engine, and each answer is collected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..request import Finished, Request, Sampling, Stopped, Token
from .errors import ApiError, from_product
from .inputs import Input
from .label_answers import check_labelled, chooses, labelled
from .protocols import AnswerStream
from .requests import SamplingFields
from .responses import Usage
from .service import Service, Target


@dataclass
class Choice:
    """One answer as it grows."""

    given: Input
    answer: AnswerStream
    tokens: list[Token] = field(default_factory=list)
    end: Finished | None = None

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


def sampling(
    body: SamplingFields, max_tokens: int, logprobs: int | None, choice: int, known: int
) -> Sampling:
    """Return how the engine samples the choice of number `choice`; each choice has a seed of its own.

    `known` is the size of the vocabulary.
    """
    bias = {int(id): value for id, value in (body.logit_bias or {}).items()}
    if (unknown := next((id for id in bias if id >= known), None)) is not None:
        message = f"Token id {unknown} is not in the vocabulary (0 to {known - 1})."
        raise ApiError(400, message, param="logit_bias", code="invalid_token")
    stop = body.stop or []
    likeliest = body.top_p == 0  # even the smallest probability keeps the likeliest token
    return Sampling(
        max_tokens=max_tokens,
        temperature=1.0 if body.temperature is None else float(body.temperature),
        top_p=1.0 if body.top_p is None or likeliest else float(body.top_p),
        top_k=1 if likeliest else max(0, body.top_k or 0),
        seed=None if body.seed is None else body.seed % 2**63 + choice,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        logprobs=logprobs,
        frequency_penalty=float(body.frequency_penalty or 0),
        presence_penalty=float(body.presence_penalty or 0),
        repetition_penalty=float(body.repetition_penalty or 1),
        logit_bias=bias,
        min_tokens=min(body.min_tokens or 0, max_tokens),
        ignore_eos=bool(body.ignore_eos),
    )


def check_count(service: Service, inputs: int, n: int | None) -> None:
    """Raise ApiError where a request wants too many answers; called before any input is read."""
    held, wanted = service.engine.capacity, inputs * (n or 1)
    most = min(service.limits.choices, held)
    if wanted > most:
        why = ", which is all that the server holds at once (--rows and --queue)" if most == held else ""
        message = f"At most {most} answers a request{why}; this one asks for {wanted}."
        raise ApiError(400, message, param="n" if inputs == 1 else "prompt", code="too_many_choices")


def check_streaming(body: SamplingFields) -> None:
    """Raise ApiError for options of a stream in a request that is not streamed."""
    if (body.tells_usage or body.tells_progress) and not body.stream:
        raise ApiError(400, "stream_options need stream=true.", param="stream_options")


def submit(
    service: Service,
    target: Target,
    body: SamplingFields,
    inputs: Sequence[Input],
    max_tokens: int | None,
    default_max_tokens: int,
    logprobs: int | None,
    *,
    echo: bool = False,
) -> list[Choice]:
    """Send the engine all choices of a request, or none, of `max_tokens` tokens (None: see `Inputs.room`).

    `echo`: the answer begins with the input's text and, with `logprobs`, with its tokens' log-probabilities.
    """
    if service.stopping:
        raise from_product(Stopped("stopping"))
    choices: list[Choice] = []
    scoring = echo and logprobs is not None  # the input is scored, whatever the prompt's task is
    if target.loaded is not None and chooses(target.loaded) and not scoring:
        check_labelled(target, logprobs is not None, echo)
        for given in inputs:
            service.inputs.check_labels(given, target.loaded, body.scale)
        return [Choice(*pair) for pair in labelled(service, target, body, inputs)]
    rooms = [
        service.inputs.room(
            given, max_tokens, target.loaded, default_max_tokens, body.scale, body.length_field
        )
        for given in inputs
    ]
    group = object()
    try:
        for given, room in zip(inputs, rooms, strict=True):
            for _ in range(body.n or 1):
                settings = sampling(body, room, logprobs, len(choices), service.inputs.known)
                request = Request(
                    target.prompt,
                    given.ids,
                    settings,
                    scoring,
                    body.scale,
                    given.text,
                    given.continues,
                    group,
                )
                choices.append(Choice(given, service.engine.submit(request, target.loaded)))
    except BaseException:
        for choice in choices:
            choice.answer.cancel()
        raise
    return choices


def usage(service: Service, choices: Sequence[Choice], dropped: bool = False) -> Usage:
    """Return the tokens of the request at its end, and count them. `dropped`: the answers are not sent."""
    total = _total(choices, dropped)
    service.metrics.count(total.prompt_tokens, total.completion_tokens, total.prompt_vectors)
    return total


def chunk_usage(body: SamplingFields, choices: Sequence[Choice], dropped: bool = False) -> dict[str, Any]:
    """Return the field `usage` of a chunk, if the client asked for it; vectors are known at the end."""
    if body.tells_progress:
        return {"usage": _total(choices, dropped).model_dump(exclude={"prompt_vectors"})}
    return {"usage": None} if body.tells_usage else {}


def _total(choices: Sequence[Choice], dropped: bool) -> Usage:
    """An input counts once, however many choices it has."""
    inputs = {id(choice.given): choice for choice in choices}.values()
    counts = [len(choice.tokens) if choice.end is None else choice.end.output_tokens for choice in choices]
    read, written = sum(len(choice.given.ids) for choice in inputs), 0 if dropped else sum(counts)
    vectors = sum(choice.end.prompt_vectors for choice in inputs if choice.end is not None)
    return Usage(
        prompt_tokens=read, completion_tokens=written, total_tokens=read + written, prompt_vectors=vectors
    )
