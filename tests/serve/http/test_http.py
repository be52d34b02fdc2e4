"""The form of requests: types and encodings of bodies, paths, HEAD, and web pages from elsewhere."""

from __future__ import annotations

import gzip
import json
import os

import httpx2 as httpx
import pytest
import yaml

from softprompt.errors import SoftPromptError
from softprompt.serve.bases import called
from softprompt.serve.http.cors import origin
from softprompt.serve.http.keys import Keys, new_key
from softprompt.serve.http.limits import Limits

TEXT = json.dumps({"model": "tiny", "prompt": "café", "max_tokens": 1}, ensure_ascii=False)
PAGE = "https://notes.example"


@pytest.fixture
def http(served):
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


def error(reply, status):
    assert reply.status_code == status, reply.text
    found = reply.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return found["message"]


@pytest.mark.parametrize(
    ("headers", "body", "status", "part"),
    [
        ({}, TEXT.encode(), 415, "`Content-Type: application/json`: the body came without a type"),
        ({"Content-Type": "text/plain"}, TEXT.encode(), 415, "the body came as text/plain"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, TEXT.encode(), 415, "application/json"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--", 415, "application/json"),
        ({"Content-Type": "json"}, TEXT.encode(), 415, "application/json"),
        ({"Content-Type": "application/json; charset=latin-1"}, TEXT.encode("latin-1"), 415, "UTF-8"),
        ({"Content-Type": "application/json; charset=utf-16"}, TEXT.encode("utf-16"), 415, "UTF-8"),
        ({"Content-Type": "application/json"}, TEXT.encode("latin-1"), 400, "not UTF-8"),
        ({"Content-Type": "application/json"}, TEXT.encode("utf-16"), 400, "not UTF-8"),
        ({"Content-Type": "application/json"}, b"{", 400, "not valid JSON"),
        ({"Content-Type": "application/json"}, b"", 400, "The body is missing"),
        ({"Content-Type": "application/json"}, b"[" * 100_000, 400, "nested too deeply"),
        ({"Content-Type": "application/json"}, b'"x"', 400, "must be an object"),
        ({"Content-Type": "application/json; charset=UTF-8"}, TEXT.encode(), 200, ""),
        ({"Content-Type": "application/json"}, b"\xef\xbb\xbf" + TEXT.encode(), 200, ""),
        ({"Content-Type": "application/vnd.api+json"}, TEXT.encode(), 200, ""),
        ({"Content-Type": "application/json", "Content-Encoding": "identity"}, TEXT.encode(), 200, ""),
    ],
)
def test_what_a_body_is_written_in(served, http, headers, body, status, part):
    reply = http.post("/v1/completions", content=body, headers=headers)
    if status == 200:
        assert reply.status_code == 200 and served.engine.requests[0].text == "café"
    else:
        assert part in error(reply, status) and not served.engine.requests


@pytest.mark.parametrize("packing", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_a_packed_body_is_not_unpacked(http, packing):
    headers = {"Content-Type": "application/json", "Content-Encoding": packing}
    reply = http.post("/v1/completions", content=gzip.compress(TEXT.encode()), headers=headers)
    assert f"packed ({packing})" in error(reply, 415)


def test_a_slash_at_the_end_changes_nothing(http):
    for path in (
        "/v1/models",
        "/v1/models/tiny",
        "/v1/models/team-a/reviews",
        "/health",
        "/play",
        "/metrics",
    ):
        plain, slashed = http.get(path), http.get(path + "/")
        assert plain.status_code == slashed.status_code == 200 and not slashed.history
        if path != "/metrics":
            assert plain.text == slashed.text
    reply = http.post("/v1/completions/", content=TEXT, headers={"Content-Type": "application/json"})
    assert reply.status_code == 200 and reply.json()["model"] == "tiny"
    assert http.get("/v1/models//").status_code == 404


def test_the_head_alone(http):
    for path in (
        "/v1/models",
        "/v1/models/tiny",
        "/health",
        "/play",
        "/metrics",
        "/openapi.json",
        "/v1/models/",
    ):
        head, whole = http.head(path), http.get(path)
        assert head.status_code == 200 and head.content == b""
        assert head.headers["content-type"] == whole.headers["content-type"]
        if path != "/metrics":
            assert head.headers["content-length"] == whole.headers["content-length"]
    assert http.head("/v1/models/none").status_code == 404
    assert http.head("/v1/completions").status_code == 405


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/chat/completions", "route is /v1/chat/completions. A client's base URL"),
        ("/completions", "route is /v1/completions. A client's base URL"),
        ("/models", "route is /v1/models. A client's base URL"),
        ("/models/tiny", "route is /v1/models. A client's base URL"),
        ("/v1/v1/chat/completions", "route is /v1/chat/completions. A client's base URL"),
        ("/openai/deployments/x/chat/completions", "route is /v1/chat/completions. A client's base URL"),
        (
            "/v1/rerank",
            "The routes are /v1/models, /v1/classify, /v1/embeddings, /v1/completions, /v1/chat/completions",
        ),
        ("/" + "x" * 5000, "The routes are"),
    ],
)
def test_where_nothing_is_served_the_route_is_named(http, path, part):
    for reply in (http.get(path), http.post(path, json={})):
        message = error(reply, 404)
        assert part in message and len(message) < 400


def test_a_base_url_without_its_end_is_told_so_at_the_root(http):
    assert "The routes are /v1/models" in error(http.post("/", json={}), 405)


def test_an_empty_limit_is_none(http):
    listed = http.get("/v1/models").json()
    assert http.get("/v1/models?search=&limit=").json() == listed
    assert "must be a whole number" in error(http.get("/v1/models?limit=many"), 400)
    assert "at least 1" in error(http.get("/v1/models?limit=0"), 400)


def test_another_method_is_named(http):
    assert "POST" in error(http.get("/v1/chat/completions"), 405)
    assert "GET" in error(http.post("/v1/models", json={}), 405)
    assert http.delete("/v1/models/tiny").headers["allow"] == "GET"


# --- web pages from elsewhere ---


def asked_ahead(served, page, **more):
    """A browser's question whether a page may call."""
    headers = "authorization,content-type,x-stainless-os"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": headers, **more}
    return httpx.options(served.url + "/v1/chat/completions", headers={"Origin": page, **asked})


def test_no_page_is_let_in_by_itself(served):
    assert asked_ahead(served, PAGE).status_code == 405
    reply = httpx.get(served.url + "/v1/models", headers={"Origin": PAGE})
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.fixture
def guarded(serve, tmp_path):
    """A server with a key, that two pages may call."""
    secret, text = new_key("page")
    entry = yaml.safe_load(text)["keys"][0] | {"prompts": ["*"]}
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"keys": [entry]}))
    keys, limits = Keys(tmp_path / "keys.yaml"), Limits(body_bytes=1000)
    return serve(keys=keys, limits=limits, cors_origins=[PAGE, "http://localhost:3000/"]), secret


def test_a_page_that_was_named_is_let_in_with_its_key(guarded):
    served, secret = guarded
    for page in (PAGE, "http://localhost:3000"):
        ahead = asked_ahead(served, page)
        assert ahead.status_code == 200 and ahead.headers["access-control-allow-origin"] == page
        assert "POST" in ahead.headers["access-control-allow-methods"]
        assert "authorization" in ahead.headers["access-control-allow-headers"].lower()
        assert (
            asked_ahead(served, page, **{"Access-Control-Request-Private-Network": "true"}).status_code == 200
        )
        body, url = {"model": "tiny", "prompt": "x", "max_tokens": 1}, served.url + "/v1/completions"
        headers = {"Origin": page, "Authorization": f"Bearer {secret}"}
        for stream in (False, True):
            reply = httpx.post(url, json={**body, "stream": stream}, headers=headers)
            assert reply.status_code == 200 and reply.headers["access-control-allow-origin"] == page
        # errors of every layer reach the page, too
        for more, status in (
            ({"json": body, "headers": {"Origin": page}}, 401),
            ({"json": {}, "headers": headers}, 400),
            ({"json": {**body, "prompt": "x" * 2000}, "headers": headers}, 413),
            ({"content": b"{}", "headers": headers}, 415),
        ):
            reply = httpx.post(url, **more)
            assert reply.status_code == status and reply.headers["access-control-allow-origin"] == page
            assert status != 401 or reply.headers["www-authenticate"] == "Bearer"


def test_another_page_is_not(guarded):
    served, secret = guarded
    for page in ("https://evil.example", "http://notes.example", PAGE + ".evil.example", "null"):
        ahead = asked_ahead(served, page)
        assert ahead.status_code == 400 and "access-control-allow-origin" not in ahead.headers
        headers = {"Origin": page, "Authorization": f"Bearer {secret}"}
        reply = httpx.get(served.url + "/v1/models", headers=headers)
        assert "access-control-allow-origin" not in reply.headers


def test_every_page(serve):
    served = serve(cors_origins=["*"])
    assert asked_ahead(served, "https://any.example").status_code == 200
    reply = httpx.get(served.url + "/v1/models", headers={"Origin": "https://any.example"})
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in reply.headers
    reply = httpx.get(served.url + "/v1/models", headers={"Origin": PAGE, "Host": "evil.example"})
    assert reply.status_code == 403  # a name of the page's own stays shut


def test_origins_are_what_browsers_send():
    for text, meant in (
        ("http://localhost:3000/", "http://localhost:3000"),
        ("HTTPS://Notes.Example:443", "https://notes.example"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("*", "*"),
        ("null", "null"),
    ):
        assert origin(text) == meant
    for text in (
        "",
        "localhost:3000",
        "notes.example",
        "https://a.example/page",
        "https://",
        "http://a:x",
        "**",
    ):
        with pytest.raises(SoftPromptError, match="is not an origin"):
            origin(text)


# --- the base's name ---


def test_a_base_is_called_as_its_folder_or_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "my-model").mkdir()
    monkeypatch.chdir(tmp_path / "my-model")
    for given in (".", "./", "../my-model", "../my-model/", str(tmp_path / "my-model"), "$PWD"):
        monkeypatch.setenv("PWD", os.getcwd())
        assert called(given) == "my-model"
    assert called("..") == tmp_path.name
    assert called("no/such/folder/model.gguf") == "model.gguf"
    monkeypatch.chdir(tmp_path)
    assert called("my-model") == "my-model" and called("smollm2") == "smollm2"
    assert called("owner/model") == "owner/model"  # a hub's
    (tmp_path / "owner" / "model").mkdir(parents=True)
    assert called("owner/model") == "model"
    assert called("/")


def test_a_name_with_an_owner_is_served(serve):
    served = serve(model_name="owner/model")
    with httpx.Client(base_url=served.url) as http:
        assert "owner/model" in {one["id"] for one in http.get("/v1/models").json()["data"]}
        assert http.get("/v1/models/owner/model").json()["id"] == "owner/model"
        body = {"model": "owner/model", "prompt": "x", "temperature": 0}
        assert http.post("/v1/completions", json=body).json()["model"] == "owner/model"
