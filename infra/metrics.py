"""What operators can watch; served as Prometheus text by ``http_api``. One registry of our own, so that tests can read it."""

from prometheus_client import CollectorRegistry, Counter, Histogram

REGISTRY = CollectorRegistry()

FALLBACK_LATENESS = Histogram(
    "pitlane_window_end_lateness_seconds",
    "From when time should end an offer's window to its committed end",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)

ITEMS_FAILED = Counter(
    "pitlane_items_failed_total",
    "Items of background work whose handling failed unexpectedly, each time",
    ["work"],
    registry=REGISTRY,
)
ITEMS_SET_ASIDE = Counter(
    "pitlane_items_set_aside_total",
    "Items of background work that failed too often and wait for an operator",
    ["work"],
    registry=REGISTRY,
)
LOOPS_DIED = Counter(
    "pitlane_loops_died_total",
    "Background loops that ended by a bug and were started again",
    ["loop"],
    registry=REGISTRY,
)

SQL_STATEMENTS = Counter(
    "pitlane_sql_statements_total",
    "Statements of what happens often, by the name of their file; executed for many at once, one counts as one",
    ["name"],
    registry=REGISTRY,
)

LATENESS_OF = {kind: FALLBACK_LATENESS.labels(kind) for kind in ("priority", "broadcast")}
"""There from the first scrape on: a series that begins with its first event hides that event from rates."""
