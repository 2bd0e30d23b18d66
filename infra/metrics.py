"""What operators can watch; served as Prometheus text by ``http_api``. One registry of our own, so that tests can read it."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

FALLBACK_LATENESS = Histogram(
    "pitlane_window_end_lateness_seconds",
    "From when time should end a window, or remind of its end, to when that is committed",
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

CONNECTIONS_REFUSED = Counter(
    "pitlane_connections_refused_total",
    "Connections, requests and handshakes that were refused at the edge, before they reached any work",
    ["why"],
    registry=REGISTRY,
)

REFUNDS_UNFINISHED = Gauge(
    "pitlane_refunds_unfinished",
    "Payments that are to go back and have not arrived, by what they wait for; as the reconciler last saw them, at most a hundred",
    ["state"],
    registry=REGISTRY,
)
DISPUTES_OPEN = Gauge(
    "pitlane_disputes_open",
    "Payments that a bank disputes, as the reconciler last saw them",
    registry=REGISTRY,
)

ROWS_FORGOTTEN = Counter(
    "pitlane_rows_forgotten_total",
    "Rows that were deleted, or keys that were taken off them, because they were older than PITLANE_RETENTION_DAYS",
    ["kind"],
    registry=REGISTRY,
)

MAIL = Counter(
    "pitlane_mail_total",
    "E-mails by what has become of them",
    ["outcome"],
    registry=REGISTRY,
)

SQL_STATEMENTS = Counter(
    "pitlane_sql_statements_total",
    "Statements of what happens often, by the name of their file; executed for many at once, one counts as one",
    ["name"],
    registry=REGISTRY,
)

LATENESS_OF = {kind: FALLBACK_LATENESS.labels(kind) for kind in ("priority", "broadcast", "start", "session")}
"""There from the first scrape on: a series that begins with its first event hides that event from rates."""
