"""/metrics gives Prometheus requests, tokens, times and the engine's numbers; no names of prompts or keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from . import request_record
from .errors import ApiError

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counts for one server, separately from any other in the process."""

    def __init__(self, numbers: Callable[[], dict[str, float]]) -> None:
        self.registry = at = CollectorRegistry()
        self.requests = Counter(
            "softprompt_requests", "Answered requests", ["endpoint", "status"], registry=at
        )
        self.seconds = Histogram(
            "softprompt_request_seconds",
            "From arrival to the last byte",
            ["endpoint"],
            buckets=SECONDS,
            registry=at,
        )
        self.first_token = Histogram(
            "softprompt_first_token_seconds", "To the first token of a request", buckets=SECONDS, registry=at
        )
        self._read = Counter("softprompt_prompt_tokens", "Tokens of inputs", registry=at)
        self._written = Counter("softprompt_completion_tokens", "Tokens of answers", registry=at)
        self._vectors = Counter(
            "softprompt_prompt_vectors", "Vectors of prompts ahead of inputs", registry=at
        )
        self.registry.register(_EngineNumbers(numbers))

    def count(self, read: int, written: int, vectors: int) -> None:
        request_record.count(read, written, vectors)
        self._read.inc(read)
        self._written.inc(written)
        self._vectors.inc(vectors)

    def seen(self, endpoint: str, status: int, seconds: float) -> None:
        self.requests.labels(endpoint, str(status)).inc()
        self.seconds.labels(endpoint).observe(seconds)


class _EngineNumbers(Collector):
    def __init__(self, numbers: Callable[[], dict[str, float]]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        for name, value in self._numbers().items():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield kind(f"softprompt_engine_{name}", "Of the engine", value=value)


def routes(metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    def numbers(http: Request) -> Any:
        if not http.state.key.metrics:
            raise ApiError(403, "This key may not read the metrics.", code="forbidden")
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return router
