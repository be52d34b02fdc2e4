"""A prompt that was tuned to choose among labels answers with the likeliest one, on every route.

The label is that of /v1/classify for the same input. Such a prompt was never trained to write free text, so
the settings of sampling have no effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, final

from ...data.example import Example
from ..label_scores import CHOOSING
from ..request import Finished, Token
from .errors import ApiError
from .inputs import Input
from .protocols import ServedPrompt
from .requests import SamplingFields
from .service import Service, Target

WHOLE_LABEL = -1  # the id of a label as one token, which the vocabulary does not have


def chooses(loaded: ServedPrompt | None) -> bool:
    return loaded is not None and loaded.encoder.kind in CHOOSING


def check_labelled(target: Target, logprobs: bool, echo: bool) -> None:
    """Raise ApiError 400 for fields that an answer that is a label cannot have."""
    field = "logprobs" if logprobs else "echo" if echo else None
    if field is not None:
        message = f"`{target.name}` answers with a label, which has no {field}: /v1/classify gives the "
        raise ApiError(400, message + "probability of each label.", param=field, code="unsupported_parameter")


def labelled(
    service: Service, target: Target, body: SamplingFields, inputs: Sequence[Input]
) -> list[tuple[Input, LabelAnswer]]:
    """Return `n` answers to each input; none is computed before it is read."""
    loaded = target.loaded
    assert loaded is not None
    vectors = loaded.vectors[0] if body.scale else 0
    answers = []
    for given in inputs:
        example = given.example
        if example is None:
            message = f"`{target.name}` chooses among the choices of each row: send `row` "
            raise ApiError(400, message + "to /v1/completions.", param=given.sent_as, code="no_choices")
        work = service.engine.classifying(target.name, [example], scale=body.scale, loaded=loaded)
        scores = _Scores(work)
        names = loaded.encoder.labels or example.rendered.choices or ()
        answers += [(given, LabelAnswer(scores, example, names, vectors)) for _ in range(body.n or 1)]
    return answers


@final
class _Scores:
    """Computes the probabilities of an input's labels once, for all answers that wait for them."""

    def __init__(self, work: Coroutine[Any, Any, list[dict[str, float]]]) -> None:
        self._work, self._task = work, None

    async def get(self) -> dict[str, float]:
        if self._task is None:
            self._task = asyncio.ensure_future(self._work)
        (probabilities,) = await asyncio.shield(self._task)
        return probabilities

    def cancel(self) -> None:
        if self._task is None:
            self._work.close()
        else:
            self._task.cancel()


@final
class LabelAnswer:
    """An answer of one token, which is the label, and the end."""

    echoed: tuple[Token, ...] = ()

    def __init__(self, scores: _Scores, example: Example, names: Sequence[str], vectors: int) -> None:
        self._scores, self._example, self._names, self._vectors = scores, example, names, vectors

    async def __aiter__(self) -> AsyncIterator[Token | Finished]:
        probabilities = await self._scores.get()
        label = max(probabilities, key=probabilities.__getitem__)
        written = (self._example.candidates or ())[list(self._names).index(label)]
        yield Token(WHOLE_LABEL, label)
        yield Finished("stop", None, len(self._example.input_ids), len(written), self._vectors)

    def cancel(self) -> None:
        self._scores.cancel()
