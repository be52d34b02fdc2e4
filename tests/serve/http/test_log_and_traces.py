"""A request is one JSON object in the log, and one span where traces are asked for; neither holds a text."""

from __future__ import annotations

import io
import json
import logging
import time

import httpx2 as httpx
import pytest

from softprompt.serve.http import logs

SECRET = "a-text-that-nobody-may-log"


@pytest.fixture
def lines(monkeypatch):
    """`lines(count)`: the objects in the log, once there are so many. They follow the answer."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    logs.use("json")

    def written(count):
        eventually(lambda: stream.getvalue().count("\n") >= count)
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield written
    logs.use("text")


def eventually(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def completion(url, **changes):
    body = {"model": "team-a/voices:joke", "prompt": SECRET, "max_tokens": 4} | changes
    return httpx.post(url + "/v1/completions", json=body, headers={"X-Request-Id": "abc-1"})


def test_a_request_is_one_object(served, lines):
    reply = completion(served.url)
    (line,) = lines(1)
    usage = reply.json()["usage"]
    assert reply.headers["x-request-id"] == line["id"] == "abc-1"
    assert (line["prompt"], line["status"], line["endpoint"]) == (
        "team-a/voices:joke",
        200,
        "/v1/completions",
    )
    for name in ("prompt_tokens", "completion_tokens", "prompt_vectors"):
        assert line[name] == usage[name] and line[name] > 0
    assert 0 < line["seconds"] < 60 and line["level"] == "info" and line["time"].endswith("Z")
    assert SECRET not in json.dumps(lines(1))


def test_a_stream_is_logged_at_its_end_with_its_tokens(served, lines):
    text = completion(served.url, stream=True).text
    assert text.endswith("data: [DONE]\n\n")
    (line,) = lines(1)
    assert line["completion_tokens"] == 4 and line["status"] == 200


def test_errors_and_ids(served, lines):
    assert completion(served.url, model=SECRET).status_code == 404
    odd = httpx.get(served.url + "/v1/models", headers={"X-Request-Id": "a b\tc" * 100})
    first, second = lines(2)
    assert (first["status"], first["prompt"], first["completion_tokens"]) == (404, None, 0)
    assert len(second["id"]) == 32 and odd.headers["x-request-id"] == second["id"]
    assert SECRET not in json.dumps(lines(1))


def test_messages_and_exceptions_are_objects_too(lines):
    log = logging.getLogger("softprompt.serve")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log.exception("it %s", "failed")
    (line,) = lines(1)
    assert line["message"] == "it failed" and "ValueError: first\nsecond" in line["exception"]


@pytest.fixture
def spans():
    pytest.importorskip("opentelemetry.sdk", reason="NO TESTS OF TRACES: pip install softprompt[traces]")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


def test_a_request_is_a_span_inside_the_callers(serve, spans):
    from softprompt.serve.http.tracing import OpenTelemetry

    provider, exporter = spans
    served = serve(tracing=OpenTelemetry(provider))
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    body = {"model": "team-a/voices:joke", "prompt": SECRET, "max_tokens": 4}
    headers = {"traceparent": f"00-{trace}-{parent}-01"}
    usage = httpx.post(served.url + "/v1/completions", json=body, headers=headers).json()["usage"]
    httpx.get(served.url + "/v1/models/none")
    eventually(lambda: len(exporter.get_finished_spans()) == 2)
    first, second = exporter.get_finished_spans()
    assert first.name == "POST /v1/completions" and first.kind.name == "SERVER"
    assert f"{first.context.trace_id:032x}" == trace and f"{first.parent.span_id:016x}" == parent
    assert first.attributes["gen_ai.request.model"] == "team-a/voices:joke"
    assert first.attributes["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert first.attributes["gen_ai.usage.output_tokens"] == usage["completion_tokens"] == 4
    assert second.attributes["http.response.status_code"] == 404 and second.parent is None
    assert not any(SECRET in str(value) for span in (first, second) for value in span.attributes.values())


def test_the_streams_span_ends_with_the_stream(serve, spans):
    from softprompt.serve.http.tracing import OpenTelemetry

    provider, exporter = spans
    served = serve(delay=0.05, tracing=OpenTelemetry(provider))
    completion(served.url, stream=True)
    eventually(exporter.get_finished_spans)
    (span,) = exporter.get_finished_spans()
    assert (span.end_time - span.start_time) / 1e9 >= 4 * 0.05  # four tokens
    assert span.attributes["gen_ai.usage.output_tokens"] == 4


def test_without_the_package_traces_say_what_to_install(monkeypatch):
    import sys

    from softprompt.errors import SoftPromptError
    from softprompt.serve.http.tracing import OpenTelemetry

    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(SoftPromptError, match="not installed") as caught:
        OpenTelemetry()
    assert caught.value.fix == "pip install 'softprompt[traces]'"


def test_the_exporter_that_variables_configure_gets_the_spans(monkeypatch):
    """The OTLP exporter sends to the address of its variable."""
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="pip install softprompt[traces]")
    from tests.serve.http.collector import collector

    from softprompt.serve.http.request_record import RequestRecord
    from softprompt.serve.http.tracing import OpenTelemetry

    with collector() as (url, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        tracing = OpenTelemetry()
        with tracing.span("GET", {"headers": []}) as span:
            tracing.finish(span, "GET", "/health", 200, RequestRecord("id-1"))
        tracing.close()
    assert (
        received[0][0] == "/v1/traces"
        and b"GET /health" in received[0][1]
        and b"softprompt" in received[0][1]
    )
