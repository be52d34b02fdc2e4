"""/v1/classify: how likely each label of a classification prompt is, for one input or several."""

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
    async def classify(asked: ClassifyRequest, http: Request) -> Any:
        scores, read = await run_in_threadpool(partial(_begin, service, asked, http.state.key))
        found = await while_there(http, _scored(service, asked.model, scores))
        service.metrics.count(read, 0, 0)
        return found

    return router


def _begin(service: Service, asked: ClassifyRequest, key: Key) -> tuple[Scores, int]:
    """Blocking: what is asked for is checked, read and encoded; and how many tokens that are."""
    target = service.target(asked.model, key)
    loaded = target.loaded
    if loaded is None or not chooses(loaded):
        message = f"`{target.name}` has no labels: it was not tuned for classification."
        raise ApiError(400, message, param="model", code="not_a_classifier")
    rows = asked.input if isinstance(asked.input, list) else [asked.input]
    if len(rows) > service.limits.choices:
        message = f"At most {service.limits.choices} inputs a request; these are {len(rows)}."
        raise ApiError(400, message, param="input", code="too_many_inputs")
    # read here first, so that a mistake in a row costs no pass
    scale = 1.0 if asked.strength is None else float(asked.strength)
    listed = isinstance(asked.input, list)
    places = [f"input.{i}" if listed else "input" for i in range(len(rows))]
    given = [_input(service, loaded, *one, scale) for one in zip(rows, places, strict=True)]
    read = [one.example for one in given]
    scores = service.engine.classifying(target.name, read, scale=scale, loaded=loaded)
    return scores, sum(len(one.ids) for one in given)


async def _scored(service: Service, name: str, scores: Scores) -> Classification:
    """Waits for the engine, as long as any answer may take, and holds no thread meanwhile."""
    try:
        found = await asyncio.wait_for(scores, service.limits.seconds)
    except asyncio.TimeoutError:
        raise too_long(service) from None
    data = [
        LabelScores(index=index, label=max(probs, key=probs.__getitem__), probs=probs)
        for index, probs in enumerate(found)
    ]
    return Classification(model=name, data=data)


def _input(
    service: Service, loaded: ServedPrompt, row: str | dict[str, Any], param: str, scale: float
) -> Input:
    what = "text" if isinstance(row, str) else "row"
    given = service.inputs.row(loaded, _row(loaded, row, param), None, param, what)
    service.inputs.check_labels(given, loaded, scale)
    return given


def _row(loaded: Any, row: str | dict[str, Any], param: str) -> Any:
    fields = loaded.encoder.template.input_fields
    if isinstance(row, str) and len(fields) != 1:
        message = f"A text fills a template of exactly one field; these are: {', '.join(fields)}."
        raise ApiError(400, message, param=param, code="no_template")
    return row
