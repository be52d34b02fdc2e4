"""/v1/models, /v1/classify, /health, /metrics, and the log."""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace

import httpx2 as httpx
import openai
import pytest
from tests.serve.http.fake_engine import FakeRegistry

from softprompt.errors import SoftPromptError


@pytest.fixture
def served(serve):
    return serve()


@pytest.fixture
def http(served):
    with httpx.Client(base_url=served.url) as client:
        yield client


def test_the_models_are_listed_with_root_and_parent(served):
    client = openai.OpenAI(base_url=served.url + "/v1", api_key="x")
    found = {model.id: model for model in client.models.list()}
    assert set(found) == {
        "tiny", "team-a/reviews", "team-a/pairs", "team-a/voices:joke", "team-a/voices:fact",
        "team-b/chat", "team-b/broken",
    }  # fmt: skip
    assert (found["tiny"].root, found["tiny"].parent) == ("tiny", None)
    assert (found["team-b/chat"].root, found["team-b/chat"].parent) == ("tiny", "tiny")
    assert served.app.state.service.registry.asked == []  # a listing opens nothing


def test_one_model_says_what_it_is_for(http):
    found = http.get("/v1/models/team-a/reviews").json()
    assert found["id"] == "team-a/reviews" and found["parent"] == "tiny"
    assert found["softprompt"] == {
        "kind": "classification", "method": "prompt-tuning", "prompts": ["default"],
        "labels": ["good", "bad"], "fields": ["text"], "target_field": "label", "prompt_field": None,
        "outdated": False, "chat": False, "system": None, "text": None,
    }  # fmt: skip
    several = http.get("/v1/models/team-a/voices").json()
    assert several["id"] == "team-a/voices" and several["softprompt"]["prompts"] == ["joke", "fact"]
    assert several["softprompt"]["prompt_field"] == "voice"
    assert http.get("/v1/models/tiny").json()["softprompt"] is None
    assert http.get("/v1/models/nobody").status_code == 404
    assert http.get("/v1/models/team-b/broken").status_code == 422


def test_an_older_version_that_answers_is_shown_as_outdated(served, http, monkeypatch):
    registry = served.app.state.service.registry
    get = registry.get
    monkeypatch.setattr(registry, "get", lambda name: replace(get(name), outdated=name == "team-a/pairs"))
    facts = {
        name: http.get(f"/v1/models/team-a/{name}").json()["softprompt"] for name in ("pairs", "reviews")
    }
    assert facts["pairs"]["outdated"] is True and facts["reviews"]["outdated"] is False


def test_a_listing_is_searched_and_bounded(http):
    def names(**query):
        reply = http.get("/v1/models", params=query).json()
        return [model["id"] for model in reply["data"]], reply["has_more"]

    assert names(search="TEAM-B") == (["team-b/broken", "team-b/chat"], False)
    assert names(search="joke") == (["team-a/voices:joke"], False)
    assert names(limit=2) == (["tiny", "team-a/pairs"], True)
    assert names(search="nothing of the kind") == ([], False)
    assert http.get("/v1/models", params={"limit": 0}).status_code == 400


def test_a_name_of_two_is_never_answered_by_one(serve):
    with pytest.raises(SoftPromptError, match="'tiny' is the base model's name and a prompt's"):
        serve(recipes={"tiny": {}})
    running = serve(recipes={})
    registry = running.app.state.service.registry
    registry.recipes["tiny"] = {}
    with httpx.Client(base_url=running.url) as http:
        assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["tiny"]
        for reply in (
            http.post("/v1/completions", json={"model": "tiny", "prompt": "x"}),
            http.get("/v1/models/tiny"),
        ):
            assert reply.status_code == 400 and reply.json()["error"]["code"] == "ambiguous_model"
        del registry.recipes["tiny"]
        assert http.post("/v1/completions", json={"model": "tiny", "prompt": "x"}).status_code == 200


def test_a_short_listing_of_many_walks_no_further(serve, talker):
    one = serve(recipes={f"p/{i:05}": {} for i in range(5000)})
    registry, seen = one.app.state.service.registry, itertools.count()

    def counted():
        for entry in FakeRegistry.names(registry):
            next(seen)
            yield entry

    registry.names = counted
    assert len(httpx.get(one.url + "/v1/models?limit=10").json()["data"]) == 10
    assert next(seen) < 12
    assert len(httpx.get(one.url + "/v1/models").json()["data"]) == 5001


def test_labels_are_scored(http):
    reply = http.post("/v1/classify", json={"model": "team-a/reviews", "input": ["dull", {"text": "fun"}]})
    first, second = reply.json()["data"]
    assert (first["index"], first["label"], second["index"], second["label"]) == (0, "bad", 1, "good")
    assert first["probs"] == pytest.approx({"good": 0.3, "bad": 0.7})
    plain = http.post("/v1/classify", json={"model": "team-a/reviews", "input": "fun", "strength": 0})
    assert plain.json()["data"][0]["probs"] == {"good": 0.5, "bad": 0.5}


@pytest.mark.parametrize(
    ("model", "given", "status"),
    [
        ("tiny", "x", 400),
        ("team-b/chat", "x", 400),
        ("team-a/reviews", [], 400),
        ("team-a/reviews", ["x"] * 100, 400),
        ("team-a/reviews", {"wrong": "x"}, 400),
        ("team-a/reviews", {"text": None}, 400),
        ("nobody", "x", 404),
    ],
)
def test_what_cannot_be_classified(http, model, given, status):
    reply = http.post("/v1/classify", json={"model": model, "input": given})
    assert reply.status_code == status and set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_health_and_metrics(http, served):
    assert http.get("/health").json() == {"status": "ok"}
    served.engine.ill = SoftPromptError("the engine at http://secret is away", why="ConnectError")
    reply = http.get("/health")
    assert (reply.status_code, reply.json()) == (200, {"status": "degraded", "reason": "ConnectError"})
    served.engine.ill = None
    assert http.get("/health").json() == {"status": "ok"}
    http.post("/v1/completions", json={"model": "tiny", "prompt": "secret words", "max_tokens": 3})
    http.post("/v1/completions", json={"model": "tiny"})
    http.get("/no/such/page")
    reply = http.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    lines = reply.text.splitlines()
    assert 'softprompt_requests_total{endpoint="/v1/completions",status="200"} 1.0' in lines
    assert 'softprompt_requests_total{endpoint="/v1/completions",status="400"} 1.0' in lines
    assert 'softprompt_requests_total{endpoint="other",status="404"} 1.0' in lines
    assert (
        "softprompt_prompt_tokens_total 12.0" in lines and "softprompt_completion_tokens_total 3.0" in lines
    )
    assert "softprompt_first_token_seconds_count 1.0" in lines and "softprompt_engine_running 0.0" in lines
    assert "secret" not in reply.text


def test_no_text_of_a_request_is_logged(serve, caplog):
    caplog.set_level(logging.DEBUG)
    served = serve()
    secret = "my-secret-text"
    with httpx.Client(base_url=served.url) as http:
        http.post("/v1/completions", json={"model": "tiny", "prompt": secret})
        http.post("/v1/completions", json={"model": secret, "prompt": secret})
        http.post("/v1/classify", json={"model": "team-a/reviews", "input": {secret: secret}})
        http.get(f"/v1/models/{secret}?search={secret}")

        def fail(*_, **__):
            raise RuntimeError(secret)

        served.engine.submit = fail
        reply = http.post("/v1/completions", json={"model": "tiny", "prompt": secret})
    assert reply.status_code == 500 and secret not in reply.text
    ours = [r for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    assert any("POST /v1/completions 200" in r.getMessage() for r in ours)
    assert any("internal error RuntimeError" in r.getMessage() for r in ours)
    assert not [r.getMessage() for r in ours if secret in r.getMessage() or secret in str(r.exc_info)]
