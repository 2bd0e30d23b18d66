"""What operators can watch; served as Prometheus text by ``http_api``. One registry of our own, so that tests can read it."""

from prometheus_client import CollectorRegistry, Histogram

REGISTRY = CollectorRegistry()

FALLBACK_LATENESS = Histogram(
    "pitlane_window_end_lateness_seconds",
    "From when time should end an offer's window to its committed end",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
for kind in ("priority", "broadcast"):
    # There from the first scrape on: a series that begins with its first event hides that event from rates.
    FALLBACK_LATENESS.labels(kind)
