"""Each request is a span of OpenTelemetry, where `--traces` asks for it and the packages are installed.

OpenTelemetry's own variables say where spans go (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, …). A
caller's `traceparent` is continued. Names are those of its conventions for HTTP and for language models. No
text of a request is in a span. opentelemetry-instrumentation-asgi would need a second wrapper around streams,
knows no prompts, and has no stable release.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

from starlette.types import Scope

from ..._system.version import version
from ...errors import SoftPromptError
from .request_record import RequestRecord


class Tracing(Protocol):
    """Opens a span for each request."""

    def span(self, method: str, scope: Scope) -> contextlib.AbstractContextManager[Any]:
        """Open the span of a request; `finish` gets what this yields."""
        ...

    def finish(self, span: Any, method: str, endpoint: str, status: int, record: RequestRecord) -> None:
        """Write what is known of the request at its end."""
        ...


class NoTracing:
    """Opens no span."""

    def span(self, method: str, scope: Scope) -> contextlib.AbstractContextManager[None]:
        """Do nothing."""
        return contextlib.nullcontext()

    def finish(self, span: Any, method: str, endpoint: str, status: int, record: RequestRecord) -> None:
        """Do nothing."""


class OpenTelemetry:
    """Opens spans of a provider; None: the one that OpenTelemetry's variables configure."""

    def __init__(self, provider: Any = None) -> None:
        try:
            from opentelemetry import propagate, trace

            provider = provider or _configured()
        except ImportError as error:
            raise SoftPromptError(
                "traces need OpenTelemetry, which is not installed",
                why=str(error),
                fix="pip install 'softprompt[traces]'",
            ) from None
        self._propagate, self._trace, self._provider = propagate, trace, provider
        self._tracer = provider.get_tracer("softprompt.serve", version())

    @contextlib.contextmanager
    def span(self, method: str, scope: Scope) -> Iterator[Any]:
        """Open the span of a request, inside the caller's where it names one."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        kind = self._trace.SpanKind.SERVER
        with self._tracer.start_as_current_span(method, self._propagate.extract(headers), kind=kind) as span:
            yield span

    def finish(self, span: Any, method: str, endpoint: str, status: int, record: RequestRecord) -> None:
        """Name the span by its route, which is known at the end alone, and add status, prompt and tokens."""
        span.update_name(f"{method} {endpoint}")
        fields = {
            "http.request.method": method,
            "http.route": endpoint,
            "http.response.status_code": status,
            "softprompt.request_id": record.id,
        }
        if record.prompt is not None:
            fields |= {
                "gen_ai.request.model": record.prompt,
                "gen_ai.usage.input_tokens": record.prompt_tokens,
                "gen_ai.usage.output_tokens": record.completion_tokens,
                "softprompt.prompt_vectors": record.prompt_vectors,
            }
        span.set_attributes(fields)
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _configured() -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({SERVICE_NAME: "softprompt"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
