"""/v1/models lists the base model and the prompts that a key may use, without opening their vectors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BeforeValidator, WithJsonSchema
from starlette.concurrency import run_in_threadpool

from ...config.schema import Recipe
from ...config.sections.task import FRAME
from ..names import Entry, one_form
from ..request import UnknownPrompt
from .errors import ErrorReply, unknown_model
from .keys import Key
from .protocols import ServedPrompt
from .responses import Model, ModelList, PromptFacts, TextFacts
from .service import Service

MOST = 2**31
LIMIT = {
    "anyOf": [{"type": "integer", "minimum": 1, "exclusiveMaximum": MOST}, {"const": ""}, {"type": "null"}]
}
#: In a query an empty text means that the parameter is absent.
Limit = Annotated[
    int | None, Query(ge=1, lt=MOST), BeforeValidator(lambda given: given or None), WithJsonSchema(LIMIT)
]


def routes(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/models", response_model=ModelList)
    async def models(
        http: Request, search: Annotated[str | None, Query(max_length=512)] = None, limit: Limit = None
    ) -> Any:
        """List all models, or the first `limit` whose names contain `search`."""
        return await run_in_threadpool(partial(_list, service, http.state.key, search or "", limit))

    @router.get("/v1/models/{name:path}", response_model=Model, responses={404: {"model": ErrorReply}})
    async def model(http: Request, name: str) -> Any:
        """Describe one model; of a prompt also what it is for."""
        return await run_in_threadpool(partial(_one, service, http.state.key, name))

    return router


def _list(service: Service, key: Key, search: str, limit: int | None) -> JSONResponse:
    matches = (model.model_dump() for model in _matches(service, key, one_form(search.lower())))
    data = list(itertools.islice(matches, limit))
    more = next(matches, None) is not None
    return JSONResponse({"object": "list", "data": data, "has_more": more})  # made here, off the event loop


def _matches(service: Service, key: Key, search: str) -> Iterator[Model]:
    if key.base and search in service.model_name.lower():
        yield _base(service)
    for entry in service.registry.names():
        if not entry.served or not key.allows(entry.name):
            continue
        for name in entry.models:
            if search in one_form(name.lower()) and name != service.model_name:
                yield _prompt(service, entry, name)


def _one(service: Service, key: Key, name: str) -> Model:
    if name == service.model_name and key.base:
        service.target(name, key)  # raises where a prompt has the same name
        return _base(service)
    if not key.allows(name.partition(":")[0]):
        raise unknown_model(name)
    try:
        entry = service.registry.describe(name)
    except UnknownPrompt:
        raise unknown_model(name) from None
    prompt = f"{name}:{entry.prompts[0]}" if len(entry.prompts) > 1 else name
    facts = _facts(service.target(prompt, key).loaded)
    return _prompt(service, entry, name).model_copy(update={"softprompt": facts})


def _base(service: Service) -> Model:
    return Model(id=service.model_name, created=0, root=service.model_name, parent=None)


def _prompt(service: Service, entry: Entry, name: str) -> Model:
    base = service.model_name
    return Model(id=name, created=int(entry.modified), root=base, parent=base)


def _facts(loaded: ServedPrompt | None) -> PromptFacts | None:
    if loaded is None:
        return None
    encoder, template = loaded.encoder, loaded.encoder.template
    targets = [field for field in template.fields() if field not in template.input_fields]
    return PromptFacts(
        kind=encoder.kind,
        method=loaded.method_name,
        prompts=list(encoder.prompts),
        labels=None if encoder.labels is None else list(encoder.labels),
        fields=list(template.input_fields),
        target_field=targets[0] if len(targets) == 1 else None,
        prompt_field=loaded.recipe.data.prompt_field,
        outdated=loaded.outdated,
        chat=template.chat,
        system=template.system if template.chat else None,
        text=_text_facts(loaded.recipe),
    )


def _text_facts(recipe: Recipe) -> TextFacts | None:
    if recipe.task.objective != "distil" or not recipe.teacher.has_text:
        return None
    system, chat = recipe.template.system, recipe.template.chat
    ahead = f"{system}\n\n" if system else ""
    if recipe.teacher.role == "document" and chat:
        ahead += FRAME
    sha256 = recipe.teacher.without_text().sha256  # None where each prompt has a text of its own
    return TextFacts(role=recipe.teacher.role, sha256=sha256, chat=chat, ahead=ahead)
