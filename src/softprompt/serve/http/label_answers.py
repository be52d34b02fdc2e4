"""A prompt that was tuned to choose among labels answers with the likeliest one, whichever route is asked.

The label is that of /v1/classify for the same input. Free text under such a prompt would mean nothing: it was
never trained to write any. How tokens are chosen has no part in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, final

from ...data.example import Example
from ..request import Finished, Token
from .errors import ApiError
from .inputs import Input
from .protocols import ServedPrompt
from .requests import SamplingFields
from .service import Service, Target

KINDS = ("classification", "choice")
WHOLE = -1  # id of the token that a label's answer is: no single one of the vocabulary


def chooses(loaded: ServedPrompt | None) -> bool:
    """Whether a prompt's task is to choose among labels or choices."""
    return loaded is not None and loaded.encoder.kind in KINDS


def check_labelled(asked: SamplingFields, target: Target, logprobs: bool, echo: bool) -> None:
    """Raises 400 for what an answer that is a label does not have."""
    field = "logprobs" if logprobs else "echo" if echo else None
    if field is not None:
        message = f"`{target.name}` answers with a label, which goes without {field}: /v1/classify gives the "
        raise ApiError(400, message + "probability of each label.", param=field, code="unsupported_parameter")


def labelled(
    service: Service, target: Target, asked: SamplingFields, inputs: Sequence[Input]
) -> list[tuple[Input, LabelAnswer]]:
    """The answers to the inputs, `n` to each: none is computed before it is read."""
    loaded = target.loaded
    assert loaded is not None
    scale = 1.0 if asked.strength is None else float(asked.strength)
    vectors = loaded.vectors[0] if scale else 0
    found = []
    for given in inputs:
        example = given.example
        if example is None:
            message = f"`{target.name}` chooses, and the choices are a field of each row: send `row` "
            raise ApiError(400, message + "to /v1/completions.", param=given.what, code="no_choices")
        work = service.engine.classifying(target.name, [example], scale=scale, loaded=loaded)
        scores = _Scores(work)
        names = loaded.encoder.labels or example.rendered.choices or ()
        found += [(given, LabelAnswer(scores, example, names, vectors)) for _ in range(asked.n or 1)]
    return found


@final
class _Scores:
    """Probabilities of an input's labels, computed once for whoever waits."""

    def __init__(self, work: Coroutine[Any, Any, list[dict[str, float]]]) -> None:
        self._work, self._task = work, None

    async def get(self) -> dict[str, float]:
        if self._task is None:
            self._task = asyncio.ensure_future(self._work)
        (found,) = await asyncio.shield(self._task)
        return found

    def cancel(self) -> None:
        if self._task is None:
            self._work.close()
        else:
            self._task.cancel()


@final
class LabelAnswer:
    """The label as one token's text, then the end."""

    echoed: tuple[Token, ...] = ()

    def __init__(self, scores: _Scores, example: Example, names: Sequence[str], vectors: int) -> None:
        self._scores, self._example, self._names, self._vectors = scores, example, names, vectors

    async def __aiter__(self) -> AsyncIterator[Token | Finished]:
        probabilities = await self._scores.get()
        label = max(probabilities, key=probabilities.__getitem__)
        written = (self._example.candidates or ())[list(self._names).index(label)]
        yield Token(WHOLE, label)
        yield Finished("stop", None, len(self._example.input_ids), len(written), self._vectors)

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._scores.cancel()
