"""Numbers of HTTP calls for operators."""

from prometheus_client import Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from infra.metrics import REGISTRY

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


def answered(method: str, route: str, status: int, duration_s: float) -> None:
    """Count one answered request. ``route`` is a template, never a path: labels must stay few."""
    known = method if method in KNOWN_METHODS else "other"
    HTTP_REQUESTS.labels(known, route, str(status)).inc()
    HTTP_DURATION_S.labels(known, route).observe(duration_s)
