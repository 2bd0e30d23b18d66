"""What operators can watch; served as Prometheus text by ``http_api``. One registry of our own, so that tests can read it."""

from prometheus_client import CollectorRegistry, Histogram

REGISTRY = CollectorRegistry()

FALLBACK_LATENESS = Histogram(
    "pitlane_window_end_lateness_seconds",
    "From an offer's deadline to the committed end of its window",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
