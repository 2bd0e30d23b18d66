"""The doors' part of the numbers for operators, and all of them as Prometheus text."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from infra.metrics import REGISTRY

if TYPE_CHECKING:
    from http_api.sockets.hub import Hub

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
# Who counts restarts has the process' start time; a second series per label set would only double the page.
disable_created_metrics()
ProcessCollector(registry=REGISTRY)

HTTP_REQUESTS = Counter(
    "pitlane_http_requests_total",
    "Answered HTTP requests by route template",
    ["method", "route", "status"],
    registry=REGISTRY,
)
HTTP_DURATION_S = Histogram(
    "pitlane_http_request_duration_seconds",
    "Time from a request's head to the end of its answer",
    ["method", "route"],
    registry=REGISTRY,
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Sockets:
    """The hub's numbers, read when somebody asks: a frame costs nothing to count."""

    def __init__(self) -> None:
        self.hub: Hub | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield nothing before there is a hub."""
        if self.hub is None:
            return
        connections = GaugeMetricFamily("pitlane_connections", "Open sockets of this process", labels=["role"])
        for role, count in self.hub.connection_counts.items():
            connections.add_metric([role], count)
        yield connections
        counted = self.hub.counters
        for name, what, value in (
            ("frames_received", "Frames that sockets have received", counted.frames_in),
            ("frames_sent", "Frames that sockets were sent", counted.frames_out),
            ("slow_consumers_closed", "Sockets closed because they did not read", counted.slow_consumers_closed),
        ):
            yield CounterMetricFamily(f"pitlane_socket_{name}", what, value=value)


SOCKETS = Sockets()
REGISTRY.register(SOCKETS)


def answered(method: str, route: str, status: int, duration_s: float) -> None:
    """Count one answered request. ``route`` is a template, never a path: labels must stay few."""
    known = method if method in KNOWN_METHODS else "other"
    HTTP_REQUESTS.labels(known, route, str(status)).inc()
    HTTP_DURATION_S.labels(known, route).observe(duration_s)


def exposition() -> bytes:
    """Return all numbers as of now."""
    return generate_latest(REGISTRY)
