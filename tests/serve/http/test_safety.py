"""Keys, bounds, hosts, clients that leave, and an end that cuts nobody off."""

from __future__ import annotations

import concurrent.futures
import os
import re
import socket
import time

import httpx2 as httpx
import openai
import pytest
import yaml

from softprompt.errors import SoftPromptError
from softprompt.serve.http.keys import Keys, new_key
from softprompt.serve.http.limits import Limits
from softprompt.serve.http.server import is_loopback, listen


def client_of(served, key="none", retries=0):
    return openai.OpenAI(base_url=served.url + "/v1", api_key=key, max_retries=retries)


def until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


@pytest.fixture
def keys_file(tmp_path):
    """Two tenants and an operator: `(path, {name: key})`."""
    entries, secrets = [], {}
    for name, more in (("team-a", {}), ("team-b", {"base": False}), ("operator", {"metrics": True})):
        secrets[name], text = new_key(name)
        entries.append(yaml.safe_load(text)["keys"][0] | more)
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump({"keys": entries}))
    return path, secrets


@pytest.fixture
def guarded(serve, keys_file):
    return serve(keys=Keys(keys_file[0])), keys_file[1]


def test_without_a_key_there_is_nothing(guarded):
    served, _ = guarded
    for key, code in ((None, "missing_api_key"), ("sp-wrong", "invalid_api_key")):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(base_url=served.url, headers=headers) as http:
            for path in ("/v1/models", "/v1/models/tiny", "/metrics"):
                reply = http.get(path)
                assert reply.status_code == 401 and reply.json()["error"]["code"] == code
                assert reply.headers["www-authenticate"] == "Bearer"
            for path in ("/v1/completions", "/v1/chat/completions", "/v1/classify"):
                assert http.post(path, json={}).status_code == 401
            assert http.get("/health").status_code == 200
    with pytest.raises(openai.AuthenticationError):
        client_of(served, "sp-wrong").models.list()


def test_a_tenant_neither_uses_nor_lists_anothers_prompts(guarded):
    served, keys = guarded
    a, b = client_of(served, keys["team-a"]), client_of(served, keys["team-b"])
    voices = {"team-a/voices:joke", "team-a/voices:fact"}
    assert {m.id for m in a.models.list()} == {"tiny", "team-a/reviews", "team-a/pairs", *voices}
    assert {m.id for m in b.models.list()} == {"team-b/chat", "team-b/broken"}
    assert a.completions.create(model="team-a/voices:joke", prompt="x").model == "team-a/voices:joke"
    messages = [{"role": "user", "content": "x"}]
    # what is another's is answered, to the letter, as what is not there
    for name in ("team-b/chat", "team-b/broken", "team-b/chat:x"):
        replies = []
        for asked in (name, "team-b/none"):
            with pytest.raises(openai.NotFoundError) as used:
                a.chat.completions.create(model=asked, messages=messages)
            with pytest.raises(openai.NotFoundError) as seen:
                a.models.retrieve(asked)
            with httpx.Client(
                base_url=served.url, headers={"Authorization": f"Bearer {keys['team-a']}"}
            ) as http:
                scored = http.post("/v1/classify", json={"model": asked, "input": "x"})
            assert scored.status_code == 404
            replies.append(
                [str(e).replace(asked, "NAME") for e in (used.value.body, seen.value.body, scored.text)]
            )
        assert replies[0] == replies[1]
    assert not [name for name in served.app.state.service.registry.asked if name.startswith("team-b")]


def test_what_else_a_key_permits(guarded):
    served, keys = guarded
    with pytest.raises(openai.PermissionDeniedError):
        client_of(served, keys["team-b"]).completions.create(model="tiny", prompt="x")
    for name, status in (("team-a", 403), ("operator", 200)):
        headers = {"Authorization": f"Bearer {keys[name]}"}
        assert httpx.get(served.url + "/metrics", headers=headers).status_code == status


def status_for(served, key):
    headers = {"Authorization": f"Bearer {key}"}
    reply = httpx.get(served.url + "/v1/models", headers=headers)
    return reply.status_code, reply.json().get("error", {}).get("code")


def without(path, name):
    """The file's text without one key's entry."""
    entries = yaml.safe_load(path.read_text())["keys"]
    return yaml.safe_dump({"keys": [entry for entry in entries if entry["name"] != name]})


def in_place(path, text):
    """Written over, with the size and the time stamp that were there before."""
    before = path.stat()
    padded = text.ljust(before.st_size - 1, "#") + "\n"
    path.write_text(padded)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (
        before.st_size,
        before.st_mtime_ns,
        before.st_ino,
    )


def replaced(path, text):
    """By another file, renamed onto it, of the same time stamp."""
    other = path.with_name("other.yaml")
    other.write_text(text)
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)


@pytest.mark.slow
@pytest.mark.parametrize("change", [lambda path, text: path.write_text(text), in_place, replaced])
def test_a_key_is_withdrawn_without_a_restart(guarded, keys_file, change):
    served, keys = guarded
    path, _ = keys_file
    assert status_for(served, keys["team-a"])[0] == 200
    change(path, without(path, "team-a"))
    assert status_for(served, keys["team-a"]) == (401, "invalid_api_key")
    assert status_for(served, keys["team-b"])[0] == 200
    change(path, "keys: []")
    assert {status_for(served, key) for key in keys.values()} == {(401, "invalid_api_key")}


def test_a_link_to_another_file_of_keys_withdraws_those_of_the_first(serve, keys_file, tmp_path):
    path, keys = keys_file
    (tmp_path / "v1").mkdir()
    (tmp_path / "v2").mkdir()
    (tmp_path / "v1/keys.yaml").write_text(path.read_text())
    (tmp_path / "v2/keys.yaml").write_text(without(path, "team-a"))
    link = tmp_path / "now"
    link.symlink_to("v1")
    served = serve(keys=Keys(link / "keys.yaml"))
    assert status_for(served, keys["team-a"])[0] == 200
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").rename(link)
    assert status_for(served, keys["team-a"])[0] == 401
    assert status_for(served, keys["team-b"])[0] == 200


def no_rights(path, monkeypatch):
    def refused(file, *_):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("softprompt._system.files.os.open", refused)


UNREADABLE = {
    "empty": lambda path, _: path.write_text(""),
    "comments alone": lambda path, _: path.write_text("# none\n"),
    "half-written": lambda path, _: path.write_text("keys: ["),
    "cut": lambda path, _: path.write_bytes(path.read_bytes()[:100]),
    "no text": lambda path, _: path.write_bytes(b"\xff\xfe\x00keys"),
    "something else": lambda path, _: path.write_text("[1, 2]"),
    "a long number": lambda path, _: path.write_text("keys: " + "1" * 5000),
    "too deep": lambda path, _: path.write_text("[" * 10_000),
    "removed": lambda path, _: path.unlink(),
    "renamed": lambda path, _: path.rename(path.with_suffix(".old")),
    "a folder": lambda path, _: (path.unlink(), path.mkdir()),
    "a pipe": lambda path, _: (path.unlink(), os.mkfifo(path)),
    "a link to nothing": lambda path, _: (path.unlink(), path.symlink_to("nothing")),
    "a link to itself": lambda path, _: (path.unlink(), path.symlink_to(path.name)),
    "no rights": no_rights,
}


@pytest.mark.parametrize("change", UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_of_keys_that_cannot_be_read_closes_the_door_and_says_so(
    guarded, keys_file, change, monkeypatch, caplog
):
    served, keys = guarded
    path, _ = keys_file
    text = path.read_bytes()
    assert status_for(served, keys["team-a"])[0] == 200
    with monkeypatch.context() as patched:
        change(path, patched)
        for secret in (keys["team-a"], keys["operator"], "sp-wrong"):
            assert status_for(served, secret) == (503, "keys_unreadable")
        with pytest.raises(SoftPromptError, match=re.escape(str(path))):  # nor does a server start with it
            Keys(path)
    output = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(output) == 1 and str(path) in output[0]  # once for the change, not for each request
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(text)
    assert status_for(served, keys["team-a"])[0] == 200
    assert not [secret for secret in keys.values() if secret in caplog.text]


def test_an_entry_appended_with_its_own_head_is_an_error_and_drops_nobody(serve, tmp_path, caplog):
    (first, one), (second, two) = new_key("a"), new_key("b")
    path = tmp_path / "keys.yaml"
    path.write_text(one)
    served = serve(keys=Keys(path))
    path.write_text(one + two)  # YAML alone keeps the last `keys:` and forgets the first client
    for secret in (first, second):
        assert status_for(served, secret) == (503, "keys_unreadable")
    line = one.count("\n") + 1
    with pytest.raises(SoftPromptError) as caught:
        Keys(path)
    assert f"`keys` occurs twice in one mapping, in lines 1 and {line}" in caught.value.what
    assert caught.value.fix == "put every entry under the one `keys:` of line 1, all indented alike"
    assert [record for record in caplog.records if "occurs twice" in record.getMessage()]
    lines = (one + two).splitlines(keepends=True)
    path.write_text("".join(lines[: line - 1] + lines[line:]))  # as the fix says
    for secret in (first, second):
        assert status_for(served, secret)[0] == 200


def test_a_key_that_occurs_twice_in_any_mapping_is_refused(tmp_path):
    secret, text = new_key("a")
    path = tmp_path / "keys.yaml"
    path.write_text(text + "  base: true\n  'base': false\n")
    with pytest.raises(
        SoftPromptError, match="`base` occurs twice in one mapping, in lines 6 and 7"
    ) as caught:
        Keys(path)
    assert caught.value.fix == "keep one of them"
    path.write_text("{keys: [], keys: []}")
    with pytest.raises(SoftPromptError, match="`keys` occurs twice"):
        Keys(path)
    other, more = new_key("b")
    more = more.removeprefix("keys:\n").replace("- name", "- <<: *a\n  name")
    path.write_text(text.replace("- name", "- &a\n  name") + "  metrics: true\n" + more)
    keys = Keys(path)  # an entry that takes over another's values and writes its own is no such file
    assert keys.find(secret).name == "a" and keys.find(other).name == "b" and keys.find(other).metrics


def test_the_file_of_keys_holds_no_key_and_its_mistakes_are_named(keys_file, tmp_path):
    path, secrets = keys_file
    assert not [secret for secret in secrets.values() if secret in path.read_text()]
    hashed = "0" * 64
    for text, part in (
        ("keys: []", "keys"),
        ("keys: [{name: a, sha256: abc}]", "sha256"),
        (f"keys: [{{name: a, sha256: '{hashed}', prompt: ['*']}}]", "prompt"),
        (f"keys: [{{name: a, sha256: '{hashed}'}}, {{name: b, sha256: '{hashed}'}}]", "twice"),
        ("keys: [", "cannot read"),
    ):
        path.write_text(text)
        with pytest.raises(SoftPromptError, match=part):
            Keys(path)
    with pytest.raises(SoftPromptError, match="cannot read"):
        Keys(tmp_path / "none.yaml")


def test_a_large_body_is_refused_before_it_is_read(serve):
    served = serve(limits=Limits(body_bytes=1000))

    def pieces():
        for _ in range(50):
            yield b"x" * 100

    for sent in ({"content": b"x" * 5000}, {"content": pieces()}):
        reply = httpx.post(served.url + "/v1/completions", **sent)
        assert reply.status_code == 413 and reply.json()["error"]["code"] == "request_too_large"
    with pytest.raises(openai.APIStatusError) as caught:
        client_of(served).completions.create(model="tiny", prompt="x" * 2000)
    assert caught.value.status_code == 413


def test_a_body_that_does_not_come_is_not_waited_for(serve):
    served = serve(limits=Limits(body_seconds=0.2))
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 50\r\n\r\n{{"
        slow.sendall(head.encode())
        assert b" 408 " in slow.recv(1000)


def test_a_full_queue_is_a_429_with_retry_after(serve):
    served = serve()
    served.engine.room = 1
    with pytest.raises(openai.RateLimitError) as caught:  # the second choice has no room
        client_of(served).completions.create(model="tiny", prompt="x", n=2)
    assert caught.value.response.headers["retry-after"] == "3" and caught.value.code == "queue_full"


@pytest.mark.slow
def test_too_many_requests_at_once_are_a_429(serve):
    served = serve(delay=0.05, limits=Limits(requests=2))
    body = {"model": "tiny", "prompt": "x" * 20, "max_tokens": 20}

    def ask(_):
        return httpx.post(served.url + "/v1/completions", json=body, timeout=30)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(ask, range(6)))
    statuses = sorted(reply.status_code for reply in replies)
    assert statuses.count(200) >= 2 and set(statuses) == {200, 429}
    assert all("retry-after" in reply.headers for reply in replies if reply.status_code == 429)
    assert ask(0).status_code == 200


def test_an_answer_that_takes_too_long_ends(serve):
    served = serve(delay=0.05, limits=Limits(seconds=0.3))
    body = {"model": "tiny", "prompt": "x" * 100, "max_tokens": 100, "temperature": 0}
    reply = httpx.post(served.url + "/v1/completions", json=body)
    assert reply.status_code == 504 and reply.json()["error"]["code"] == "timeout"
    with pytest.raises(openai.APIError, match="longer than"):
        list(client_of(served).completions.create(**body, stream=True))
    until(lambda: served.engine.running == 0)
    assert served.engine.left == 2


@pytest.mark.parametrize("stream", [True, False])
def test_what_fails_before_the_first_token_has_its_own_status(serve, stream):
    served = serve()
    served.engine.fails = SoftPromptError("a number was not finite")
    with pytest.raises(openai.InternalServerError, match="not finite"):
        client_of(served).completions.create(model="tiny", prompt="x", stream=stream)
    served.engine.room = 0
    with pytest.raises(openai.RateLimitError):
        client_of(served).chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "x"}], stream=stream
        )


def test_an_answer_that_fails_later_keeps_what_it_said(serve):
    """In a stream as events ahead of the error; else in the error itself."""
    served = serve()
    served.engine.fails, served.engine.fails_after = SoftPromptError("a number was not finite"), 5
    body = {"model": "tiny", "prompt": "x", "temperature": 0, "n": 2}
    with pytest.raises(openai.InternalServerError, match="not finite") as caught:
        client_of(served).completions.create(**body)
    partial = {one["index"]: one["text"] for one in caught.value.body["partial"]}
    assert "plain" in partial.values() and all("plain".startswith(text) for text in partial.values())
    text = ""
    with pytest.raises(openai.APIError, match="not finite"):
        for part in client_of(served).completions.create(**{**body, "n": 1}, stream=True):
            text += part.choices[0].text
    assert text == "plain"
    whole = httpx.post(served.url + "/v1/completions", json={**body, "stream": True})
    assert whole.status_code == 200 and whole.text.endswith("data: [DONE]\n\n")


def test_more_answers_than_the_engine_holds_are_a_400(serve):
    served = serve()
    served.engine.capacity = 4
    for given in ({"prompt": "x", "n": 5}, {"prompt": ["x"] * 3, "n": 2}):
        with pytest.raises(openai.BadRequestError, match=r"At most 4 answers.*--rows and --queue"):
            client_of(served).completions.create(model="tiny", **given)
    output = client_of(served).completions.create(model="tiny", prompt=["x"] * 2, n=2, max_tokens=2)
    assert len(output.choices) == 4


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_takes_its_rows_along(serve, stream):
    served = serve(delay=0.05)
    body = {
        "model": "tiny",
        "prompt": "x" * 200,
        "max_tokens": 250,
        "n": 3,
        "stream": stream,
        "temperature": 0,
    }
    with httpx.Client(base_url=served.url, timeout=1.0) as http:
        if stream:
            with http.stream("POST", "/v1/completions", json={**body, "max_tokens": 56}) as reply:
                lines = reply.iter_lines()  # kept: an iterator that is dropped closes the connection
                assert "choices" in next(lines)
                assert served.engine.running == 3
        else:
            with pytest.raises(httpx.ReadTimeout):
                http.post("/v1/completions", json={**body, "max_tokens": 56})
    # on a busy machine the rows may begin after the client has left
    until(lambda: served.engine.left == 3 and served.engine.running == 0)


def test_a_page_from_elsewhere_cannot_call_loopback(serve):
    served = serve()
    for host, status in (("evil.example", 403), ("localhost", 200), ("127.0.0.1:1234", 200), ("", 403)):
        assert httpx.get(served.url + "/health", headers={"Host": host}).status_code == status
    text = {"Content-Type": "text/plain"}  # what a page may send without asking first
    body = b'{"model": "tiny", "prompt": "x"}'
    assert httpx.post(served.url + "/v1/completions", content=body, headers=text).status_code == 415
    assert httpx.options(served.url + "/v1/completions", headers={"Origin": "http://evil"}).status_code == 405
    assert served.engine.requests == []


def test_what_runs_is_finished_at_the_end_and_new_work_refused(serve):
    served = serve(delay=0.02, drain=20)
    body = {"model": "tiny", "prompt": "x" * 20, "max_tokens": 100, "temperature": 0}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(client_of(served).completions.create, **body)
        until(lambda: served.engine.running == 1)
        served.server.should_exit = True
        until(lambda: served.engine.stopping.is_set())
        with pytest.raises((openai.APIConnectionError, openai.InternalServerError)):
            client_of(served).completions.create(**body)
        assert running.result(30).choices[0].text == "plain[1]:" + "x" * 20
    served.thread.join(20)
    assert not served.thread.is_alive()


@pytest.mark.parametrize("stream", [True, False])
def test_what_is_not_done_in_time_is_told_so(serve, stream):
    served = serve(delay=0.1, drain=0.3)
    body = {"model": "tiny", "prompt": "x" * 200, "max_tokens": 50, "temperature": 0, "stream": stream}

    def ask():
        return httpx.post(served.url + "/v1/completions", json=body, timeout=30)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask)
        until(lambda: served.engine.running == 1)
        served.server.should_exit = True
        reply = running.result(30)
    assert "shutting_down" in reply.text
    if stream:
        assert reply.status_code == 200 and reply.text.endswith("data: [DONE]\n\n")
    else:
        assert reply.status_code == 503 and "retry-after" in reply.headers


def test_loopback_is_known():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "example.org", "")))


def test_a_port_that_is_taken_is_said():
    with listen("127.0.0.1", 0) as bound:
        bound.listen()
        with pytest.raises(SoftPromptError, match="cannot listen"):
            listen("127.0.0.1", bound.getsockname()[1])


def test_memory_is_given_back_as_long_as_the_server_runs(serve):
    served = serve()
    trimming = served.server.trimming
    assert trimming.is_alive()
    served.stop()
    assert not trimming.is_alive()
