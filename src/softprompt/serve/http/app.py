"""The application serves OpenAI's routes, and this server's own, over an engine and a registry of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.responses import RedirectResponse

from ..._system.version import version
from .. import playground
from ..control_tokens import Policy
from ..names import check_base
from . import chat, classify, completions, cors, embeddings, errors, metrics, models
from .errors import ErrorReply
from .inputs import Inputs
from .keys import Keys
from .limits import Limits
from .metrics import Metrics
from .middleware import Middleware
from .protocols import AnsweringEngine, PromptRegistry
from .responses import Health
from .service import Service
from .tracing import Tracing

FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply, "description": description}
    for status, description in {
        400: "A request that cannot be answered",
        401: "No key, or an unknown one",
        403: "Not for this key, or by a wrong host name",
        404: "No such model, or not for this key",
        408: "The body did not arrive",
        413: "Too large",
        415: "A body that is not JSON in UTF-8, or is packed",
        422: "The prompt's files are damaged",
        429: "Too much at once; see Retry-After",
        500: "A failure of the server",
        502: "A failure of the engine behind the server",
        503: "Shutting down, or its keys cannot be read, or its engine is away; see Retry-After",
        504: "It took too long",
    }.items()
}


def create_app(
    engine: AnsweringEngine,
    registry: PromptRegistry,
    *,
    model_name: str,
    tokenizer: Any,
    context: int | None,
    keys: Keys | None = None,
    limits: Limits | None = None,
    hosts: Sequence[str] = (),
    cors_origins: Sequence[str] = (),
    control_tokens: Policy = "allow",
    play_text: str = "",
    tracing: Tracing | None = None,
) -> FastAPI:
    """Create the application. `context` is the model's, in tokens.

    `hosts` are those of `Middleware`, `cors_origins` those of `cors.allow`. `control_tokens` in a
    client's text are control tokens ("allow"), text ("escape"), or a 400 ("refuse"). `play_text` is
    a text that a prompt was distilled from: everybody who opens /play reads it. `tracing` opens a span
    for each request. Raises SoftPromptError where a prompt has the base's name. Once
    `app.state.service.stopping` is set, new work is refused and running work continues.
    """
    check_base(registry.holds, model_name)
    limits = limits or Limits()
    numbers = Metrics(engine.numbers)
    inputs = Inputs(tokenizer, context, limits, control_tokens, getattr(engine, "plain_texts", None))
    service = Service(engine, registry, model_name, inputs, limits, keys, numbers)
    # no docs pages: they would fetch scripts from other servers
    app = FastAPI(title="softprompt", version=version(), docs_url=None, redoc_url=None)
    app.state.service = service
    routers = [*(part.routes(service) for part in (completions, chat, classify, embeddings, models))]
    errors.install(app, [route.path for router in routers for route in router.routes])  # type: ignore[attr-defined]
    for router in (*routers, metrics.routes(numbers)):
        app.include_router(router, responses=FAILURES, dependencies=[Depends(service.caller)])

    @app.get("/health", response_model=Health, response_model_exclude_none=True)
    async def health() -> Health:
        """Answer 200 while this server answers at all: a restart would not repair the engine."""
        if service.stopping:
            return Health(status="stopping")
        problem = await engine.problem()
        if problem is None:
            return Health(status="ok")
        return Health(status="degraded", reason=problem.why or problem.what)  # no address: there was no key

    app.include_router(playground.routes(play_text))

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/play")

    app.state.hosts = {host.lower() for host in hosts}
    names = app.state.hosts
    app.add_middleware(Middleware, limits=limits, metrics=numbers, hosts=names, tracing=tracing)  # type: ignore[arg-type]
    cors.allow(app, cors_origins)
    return app
