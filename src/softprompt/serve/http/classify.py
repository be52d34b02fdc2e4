"""/v1/classify gives the probability of each label of a classification prompt, for one input or several."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from .errors import ApiError
from .inputs import Input
from .keys import Key
from .label_answers import chooses
from .protocols import ServedPrompt
from .requests import ClassifyRequest
from .responses import Classification, LabelScores
from .service import Service
from .streaming import too_long, while_there

Scores = Coroutine[Any, Any, list[dict[str, float]]]


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/classify", response_model=Classification)
    async def classify(body: ClassifyRequest, http: Request) -> Any:
        scores, tokens = await run_in_threadpool(partial(_begin, service, body, http.state.key))
        result = await while_there(http, _scored(service, body.model, scores))
        service.metrics.count(tokens, 0, 0)
        return result

    return router


def _begin(service: Service, body: ClassifyRequest, key: Key) -> tuple[Scores, int]:
    """Check and encode the inputs, which blocks; return their scores, to be awaited, and count tokens."""
    target = service.target(body.model, key)
    loaded = target.loaded
    if loaded is None or not chooses(loaded):
        message = f"`{target.name}` has no labels: it was not tuned for classification."
        raise ApiError(400, message, param="model", code="not_a_classifier")
    rows = body.input if isinstance(body.input, list) else [body.input]
    if len(rows) > service.limits.choices:
        message = f"At most {service.limits.choices} inputs a request; these are {len(rows)}."
        raise ApiError(400, message, param="input", code="too_many_inputs")
    # encoded before anything is computed, so that a mistake in a row costs no pass
    listed = isinstance(body.input, list)
    inputs = [
        _input(service, loaded, row, f"input.{i}" if listed else "input", body.scale)
        for i, row in enumerate(rows)
    ]
    examples = [given.example for given in inputs]
    scores = service.engine.classifying(target.name, examples, scale=body.scale, loaded=loaded)
    return scores, sum(len(given.ids) for given in inputs)


async def _scored(service: Service, name: str, scores: Scores) -> Classification:
    """Wait for the engine, as long as any answer may take, without holding a thread."""
    try:
        rows = await asyncio.wait_for(scores, service.limits.seconds)
    except asyncio.TimeoutError:
        raise too_long(service) from None
    data = [
        LabelScores(index=index, label=max(probs, key=probs.__getitem__), probs=probs)
        for index, probs in enumerate(rows)
    ]
    return Classification(model=name, data=data)


def _input(
    service: Service, loaded: ServedPrompt, row: str | dict[str, Any], param: str, scale: float
) -> Input:
    fields = loaded.encoder.template.input_fields
    if isinstance(row, str) and len(fields) != 1:
        message = f"A text fills a template of exactly one field; these are: {', '.join(fields)}."
        raise ApiError(400, message, param=param, code="no_template")
    given = service.inputs.row(loaded, row, None, param, "text" if isinstance(row, str) else "row")
    service.inputs.check_labels(given, loaded, scale)
    return given
