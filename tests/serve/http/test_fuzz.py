"""Requests drawn from the published OpenAPI schema, and from outside it: none makes the server fail."""

from __future__ import annotations

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import booleans, sampled_from

schemathesis = pytest.importorskip("schemathesis", reason="NO FUZZING: pip install schemathesis")

from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.generation import GenerationMode  # noqa: E402
from schemathesis.specs.openapi import checks  # noqa: E402

pytestmark = pytest.mark.whole

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.unsupported_method,
]
OPERATIONS = (
    ("/v1/completions", "POST"),
    ("/v1/chat/completions", "POST"),
    ("/v1/classify", "POST"),
    ("/v1/embeddings", "POST"),
    ("/v1/models", "GET"),
    ("/v1/models/{name}", "GET"),
    ("/metrics", "GET"),
    ("/health", "GET"),
)
NAMES = ("tiny", "team-a/reviews", "team-b/chat", "team-a/pairs")
#: What a request is about, by route: a plain one of it, and the fields that may say it.
QUESTIONS = {
    "/v1/completions": {"prompt": "the sea"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "the sea"}]},
    "/v1/classify": {"input": "the sea"},
    "/v1/embeddings": {"input": "the sea"},
}
ASKED = ("model", "prompt", "messages", "row", "input")


@pytest.fixture(scope="module", autouse=True)
def _the_same_draws_everywhere():
    """Hypothesis draws from the constants of all modules that are loaded, too, which differ by run."""
    from hypothesis.internal.conjecture import providers

    with pytest.MonkeyPatch.context() as patch:
        none = providers.Constants()
        patch.setattr(providers, "_get_local_constants", lambda: none)
        yield


@pytest.fixture(scope="module")
def schema(one):
    return schemathesis.openapi.from_url(f"{one.url}/openapi.json")


def test_every_operation_is_drawn_from(schema):
    found = {(one.ok().path, one.ok().method.upper()) for one in schema.get_all_operations()}
    assert found == set(OPERATIONS)


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_drawn_requests(schema, path, method, mode):
    """Some have a model that exists, a plain question and few options: all of them seldom go together."""
    operation, statuses = schema[path][method], set()
    if mode is GenerationMode.NEGATIVE and path in ("/metrics", "/health", "/v1/models/{name}"):
        return  # nothing can be wrong about them

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(
        case=operation.as_strategy(generation_mode=mode),
        name=sampled_from((None, *NAMES)),
        few=sampled_from((0, 1, 2, None)),
        plain=booleans(),
    )
    def ask(case, name, few, plain):
        if name and isinstance(case.body, dict) and "model" in case.body:
            options = [key for key in case.body if key not in ASKED]
            for option in options[few:] if few is not None else ():
                del case.body[option]
            asked = QUESTIONS[path] if plain else {key: case.body[key] for key in ASKED if key in case.body}
            case.body = {key: case.body[key] for key in case.body if key not in ASKED} | asked
            case.body["model"] = name
        reply = case.call()
        wrong = [checks.negative_data_rejection] if name is None and mode is GenerationMode.NEGATIVE else []
        case.validate_response(reply, checks=[*CHECKS, *wrong])
        if reply.status_code >= 400:
            assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        statuses.add(reply.status_code)

    ask()
    if mode is GenerationMode.POSITIVE:
        # it got past the door; prompts that give vectors are in tests/serve/test_embeddings.py
        assert {"/v1/models/{name}": 404, "/v1/embeddings": 400}.get(path, 200) in statuses


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"model": "tiny", "prompt": "\\ud800"}',
        b'{"model": "\\ud800", "prompt": "x"}',
        b'{"model": "tiny", "prompt": NaN}',
        b'{"model": "tiny", "prompt": "x", "temperature": Infinity}',
        b'{"model": "tiny", "prompt": "x", "seed": 1' + b"0" * 5000 + b"}",
        b'{"model": "tiny", "prompt": [' + b"9" * 400 + b"]}",
        b'{"model": "tiny", "prompt": "\\u0000\\u0001\\ufffe\\uffff"}',
        b"[" * 100_000,
        b'{"model": "tiny", "row": ' + b'{"a":' * 500 + b"1" + b"}" * 501,
        b'{"model": "team-a/reviews", "row": {"text": {"deep": [[["\\ud800"]]]}}}',
        b'{"model": "team-a/reviews", "row": {"text": 1e999, "label": null}}',
        b'{"model": "tiny", "prompt": "x", "logit_bias": {"\\u0661": 1}}',
        b'{"model": "team-a\\u0000/reviews", "prompt": "x"}',
        b'{"model": "tiny", "prompt": "x", "stop": "\\ud83d"}',
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/chat/completions", "/v1/classify", "/v1/embeddings"]
)
def test_odd_bodies(odd, path, body):
    reply = odd.post(path, content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code < 500
    if reply.status_code != 200:
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "name", ["..%2f..%2fetc%2fpasswd", "%00", "%ff%fe", "a" * 5000, "%ed%a0%80", "a%0d%0ab", "//", "%5c..%5c"]
)
def test_odd_names(odd, name):
    reply = odd.get(f"/v1/models/{name}")
    assert reply.status_code == 404 and reply.json()["error"]["code"] in ("model_not_found", "not_found")


@pytest.fixture(scope="module")
def one(talker):
    from tests.serve.http.conftest import RECIPES, Running
    from tests.serve.http.fake_engine import FakeEngine, FakeRegistry

    from softprompt.serve.http import create_app

    engine = FakeEngine(talker.tokenizer)
    app = create_app(
        engine, FakeRegistry(talker, RECIPES), model_name="tiny", tokenizer=talker.tokenizer, context=256
    )
    running = Running(app, engine, 1.0)
    yield running
    running.stop()


@pytest.fixture
def odd(one):
    with httpx.Client(base_url=one.url, timeout=30) as client:
        yield client
