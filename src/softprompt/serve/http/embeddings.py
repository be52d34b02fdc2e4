"""/v1/embeddings gives vectors of texts under a prompt that was tuned for embeddings, in OpenAI's form."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Coroutine
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from .errors import ApiError
from .keys import Key
from .requests import Body
from .service import Service
from .streaming import too_long, while_there
from .validation_errors import ONE_OF

Vectors = Coroutine[Any, Any, list[list[float]]]
MOST = 2048  # texts a request, as OpenAI has it


class EmbeddingRequest(Body):
    """The texts whose vectors are wanted; `document` says that they are documents, and no queries."""

    input: Annotated[str | Annotated[list[str], Field(min_length=1)], ONE_OF]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None
    document: bool = False


class Embedding(BaseModel):
    """The vector of one text is written as numbers, or as base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class TokensRead(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: TokensRead


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/embeddings", response_model=EmbeddingList)
    async def embeddings(body: EmbeddingRequest, http: Request) -> Any:
        vectors, tokens = await run_in_threadpool(partial(_begin, service, body, http.state.key))
        result = await while_there(http, _given(service, body, vectors, tokens))
        service.metrics.count(tokens, 0, 0)
        return result

    return router


def _begin(service: Service, body: EmbeddingRequest, key: Key) -> tuple[Vectors, int]:
    """Check and encode the texts, which blocks; return their vectors, to be awaited, and count tokens."""
    target = service.target(body.model, key)
    loaded, engine = target.loaded, getattr(service.engine, "embedding", None)
    if engine is None or (loaded is not None and loaded.encoder.kind != "embedding"):
        message = f"`{target.name}` gives no vectors: it was not tuned for embeddings."
        raise ApiError(400, message, param="model", code="not_an_embedding")
    texts = body.input if isinstance(body.input, list) else [body.input]
    if len(texts) > MOST:
        message = f"At most {MOST} texts a request; these are {len(texts)}."
        raise ApiError(400, message, param="input", code="too_many_inputs")
    examples = []
    for number, text in enumerate(texts):
        param = f"input.{number}" if isinstance(body.input, list) else "input"
        if not text.strip():
            raise ApiError(400, "An empty text has no vector.", param=param, code="empty_input")
        examples.append(service.inputs.for_vector(loaded, text, param, document=body.document))
    return engine(loaded, examples), sum(len(example.input_ids) for example in examples)


async def _given(service: Service, body: EmbeddingRequest, vectors: Vectors, tokens: int) -> EmbeddingList:
    """Wait for the engine, as long as any answer may take, without holding a thread."""
    try:
        rows = await asyncio.wait_for(vectors, service.limits.seconds)
    except asyncio.TimeoutError:
        raise too_long(service) from None
    if body.dimensions not in (None, len(rows[0])):
        message = f"The vectors have {len(rows[0])} dimensions, and cannot be shortened."
        raise ApiError(400, message, param="dimensions", code="dimensions")
    data = [Embedding(index=i, embedding=_written(row, body.encoding_format)) for i, row in enumerate(rows)]
    return EmbeddingList(
        model=body.model, data=data, usage=TokensRead(prompt_tokens=tokens, total_tokens=tokens)
    )


def _written(vector: list[float], form: str) -> list[float] | str:
    if form == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
