"""The load test's clients recognize errors and wrong answers, and it detects memory that grows."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

pytest.importorskip("httpx2", reason="NO LOAD TESTS: pip install softprompt[gateway]")

from benchmarks.serving import clients, load
from benchmarks.serving.clients import Asked, run

pytestmark = pytest.mark.whole


def answered(text="ab", reason="length", tokens=2):
    used = {"prompt_tokens": 3, "completion_tokens": tokens}
    return {"choices": [{"text": text, "finish_reason": reason}], "usage": used}


class Server(BaseHTTPRequestHandler):
    """Answers as the request's model names."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = {
            "other": answered(text="ac"),
            "short": answered(tokens=1),
            "ended": answered(reason="stop"),
            "empty": {},
        }.get(asked["model"], answered())
        if asked["model"] == "refused":
            return self.say(500, b"no")
        if not asked.get("stream"):
            return self.say(200, b"{" if asked["model"] in ("cut", "failed") else json.dumps(answer).encode())
        first = {"error": {"message": "no"}} if asked["model"] == "failed" else {"choices": []}
        events = [f"data: {json.dumps(event)}\n\n" for event in (first, answer)]
        self.say(200, "".join([*events, *(["data: [DONE]\n\n"] * (asked["model"] != "cut"))]).encode())

    def say(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("whole", [0, 1])
@pytest.mark.parametrize(
    ("model", "bad"),
    [("fine", ""), ("other", "wrong")]
    + [(model, "errors") for model in ("refused", "cut", "failed", "short", "ended", "empty")],
)
def test_answers_are_right_wrong_or_errors(url, model, bad, whole, monkeypatch):
    monkeypatch.setattr(clients, "WHOLE", whole)
    monkeypatch.setattr(clients, "LEAVING", 0)
    monkeypatch.setattr(clients, "MOST", 3)
    seen = run(url, 1, 30, lambda: Asked(model, (5, 6, 7), 2, "ab"))
    assert (len(seen.errors), len(seen.wrong)) == (3 * (bad == "errors"), 3 * (bad == "wrong"))
    assert len(seen.whole) == seen.checked == 3 * (bad != "errors")
    assert len(seen.first) == (len(seen.whole) if not whole else 0)


def test_clients_that_leave_are_counted_separately(url, monkeypatch):
    monkeypatch.setattr(clients, "LEAVING", 1)
    monkeypatch.setattr(clients, "MOST", 4)
    seen = run(url, 2, 30, lambda: Asked("fine", (5, 6, 7), 2, "ab"))
    assert seen.left >= 4 and not seen.whole and not seen.errors


def test_a_server_that_is_not_there_is_an_error():
    seen = run("http://127.0.0.1:9", 2, 0.3, lambda: Asked("fine", (5,), 1))
    assert seen.errors and not seen.whole


@pytest.mark.parametrize(("growth", "met"), [(0.0, True), (0.1, True), (0.5, False)])
@pytest.mark.parametrize("minutes", [60, 18])
def test_memory_is_flat_or_grows(growth, met, minutes):
    """Memory doubles to 1,000 MB, then grows by MB a minute; of 18 minutes the first half may grow."""
    growth *= 60 / minutes
    memory = load.Memory(os.getpid())
    memory.seen = [(10 * i, min(1000.0, 500 + 20 * i) + growth * i / 6) for i in range(6 * minutes + 1)]
    line = memory.line()
    assert line.met is met
    assert f"since the first {growth:+.2f} MB a minute" in line.note
    marks = range(10, 61, 10) if minutes == 60 else (9, 18)
    # medians of the minute that ends there, or of the tenth of a shorter part
    listed = line.note.partition("minutes ")[2].partition(";")[0]
    assert [float(mb.replace(",", "")) for mb in listed.split(", ")] == [
        pytest.approx(1000 + growth * mark, abs=1 + growth) for mark in marks
    ]


def test_a_wrong_answer_and_an_error_fail_the_run():
    bench, memory = SimpleNamespace(clients=64, exact=True), load.Memory(os.getpid())
    seen = clients.Seen(whole=[1.0, 2.0], checked=2, wrong=["load/1: 'a', alone 'b'"], seconds=1.0)
    first = next(load.lines(bench, seen, memory))
    assert "1 of 2 not as alone, the first: load/1" in first.fault
    seen = clients.Seen(errors=["ValueError: 500 no"], seconds=1.0)
    first = next(load.lines(bench, seen, memory))
    assert "1 errors, the first: ValueError: 500 no; no answer was checked" in first.fault
