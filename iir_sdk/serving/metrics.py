"""What the server counts, as Prometheus reads it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, fields

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iir_sdk.serving.replica import Figures

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 15, 30, 60)
_TOGETHER = (1, 2, 4, 8, 16, 32)
_SILENT = 300.0
"""Seconds after which a replica that answered nothing is told of no more."""
_LARGEST_ERROR = 1 << 16
_LEVELS = {"sets": "sets_in_memory", "set_bytes": "set_bytes_in_memory"}
_MEANING = {
    "sets": "Sets of supports in a replica's memory.",
    "set_bytes": "Bytes of memory that these hold, at most.",
    "loads": "Sets that a replica read from their files.",
    "evictions": "Sets that left a replica's memory for others.",
    "batches": "Batches of predictions that a replica computed.",
    "pictures": "Pictures in these batches.",
}


@dataclass(frozen=True)
class _Seen:
    figures: Figures
    at: float


class _OfReplicas(Collector):
    """What replicas said of themselves with their last answers."""

    def __init__(self) -> None:
        self.seen: MutableMapping[str, _Seen] = {}

    def collect(self) -> Iterator[Metric]:
        """As the library asks for it."""
        now = time.monotonic()
        present = {name: seen.figures for name, seen in list(self.seen.items()) if now - seen.at < _SILENT}
        for figure in (field.name for field in fields(Figures)):
            kind = GaugeMetricFamily if figure in _LEVELS else CounterMetricFamily
            name = _LEVELS.get(figure, f"set_{figure}" if figure in ("loads", "evictions") else figure)
            family = kind(f"iir_{name}", _MEANING[figure], labels=["replica"])
            for replica, figures in present.items():
                family.add_metric([replica], getattr(figures, figure))
            yield family


class Metrics:
    """Of one server's process, its requests; and its replicas' figures."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._replicas = _OfReplicas()
        self._registry.register(self._replicas)
        asked, registry = ("path", "method"), self._registry
        self.requests = Counter("iir_requests", "Requests answered.", (*asked, "status"), registry=registry)
        self.seconds = Histogram("iir_request_seconds", "Until the answer.", asked, buckets=_SECONDS, registry=registry)
        self.in_flight = Gauge("iir_requests_in_flight", "Requests that wait for their answer.", registry=registry)
        self.errors = Counter("iir_errors", "Errors by their code.", ("code",), registry=registry)
        self.together = Histogram(
            "iir_pictures_together",
            "Of each prediction, how many pictures were computed at once.",
            buckets=_TOGETHER,
            registry=registry,
        )
        self.lost = Counter("iir_replicas_lost", "Requests whose replica ended.", registry=registry)

    def seen(self, replica: str, figures: Figures, together: int) -> None:
        """What came with an answer."""
        self._replicas.seen[replica] = _Seen(figures, time.monotonic())
        if together:
            self.together.observe(together)

    @property
    def crowded(self) -> bool:
        """Whether a replica could not hold all sets that it was asked for."""
        return any(seen.figures.evictions for seen in self._replicas.seen.values())

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)


class Measured:
    """An application whose requests are counted."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI says."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, problem = 500, b""

        async def watched(message: Message) -> None:
            nonlocal status, problem
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status >= 400 and len(problem) < _LARGEST_ERROR:
                problem += message.get("body", b"")
            await send(message)

        start = time.perf_counter()
        self.metrics.in_flight.inc()
        try:
            await self.app(scope, receive, watched)
        finally:
            self.metrics.in_flight.dec()
            path, method = _path_of(str(scope["path"])), str(scope["method"])
            self.metrics.seconds.labels(path, method).observe(time.perf_counter() - start)
            self.metrics.requests.labels(path, method, status).inc()
            if status >= 400:
                self.metrics.errors.labels(_code(problem)).inc()


def _path_of(path: str) -> str:
    """A path without the names in it, which would be as many series: of a few kinds."""
    parts = path.strip("/").split("/")
    if parts[:2] == ["v1", "supports"] and len(parts) in (3, 4):
        return "/v1/supports/{id}" + ("/file" if len(parts) == 4 else "")
    known = ("/v1/health", "/v1/supports", "/v1/predict", "/v1/openapi.json", "/metrics")
    return path if path in known else "other"


def _code(problem: bytes) -> str:
    try:
        return str(json.loads(problem)["code"])
    except (ValueError, LookupError, TypeError):
        return "other"
