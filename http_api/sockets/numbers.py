"""The sockets' part of the numbers for operators."""

from collections.abc import Iterator

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from http_api.sockets.hub import Hub
from infra.metrics import REGISTRY


class SocketNumbers:
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


SOCKETS = SocketNumbers()
REGISTRY.register(SOCKETS)
