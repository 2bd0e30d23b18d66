"""What a connection may take before it is a socket. Listed with all other limits in ``docs/limits.md``."""

from dataclasses import dataclass
from typing import Final

from infra.open_files import OpenFiles
from models.settings import DoorSettings

HEADERS_MAX: Final = 128
"""Header lines of one request; browsers send some twenty. Each costs far more memory than it has bytes."""
UPGRADE_LINE_LEN_MAX: Final = 8 * 1024 - 2
"""Bytes of one line in the head of an upgrade: what the library that reads it takes, less its line end."""
PIPELINED_MAX: Final = 16
"""Requests that wait on one connection for the answers to earlier ones; after that it is closed with the last answer."""
GUESTS_SHARE: Final = 2
"""At most one in so many of all connections is a guest's."""
REQUEST_COST_LEN: Final = 16 * 1024
"""What a request in work takes besides its bytes, as measured: its task, its scope, its headers."""
QUIET_LEN: Final = 1024
"""Bytes. A guest who has sent less than this of a head costs no more than a silent one."""


@dataclass(frozen=True)
class EdgeLimits:
    """For all connections of a process together, and for each."""

    connections_max: int
    """All of them, sockets included."""
    guests_max: int
    """Of those, connections on which nobody has signed in."""
    guests_len_max: int
    """Bytes that guests' requests may take together."""
    head_len_max: int
    silence_s: float
    """How long nothing may come of what we wait for: a head's end, a body's next byte, a request at all, an answer being read."""
    request_s: float
    """How long a body may take in all, and an answer to be read."""
    handshake_s: float
    """How long a socket's handshake may take us."""
    drain_s: float
    """How long a client may take in a drain for what it is in the middle of sending or reading."""

    @classmethod
    def of(cls, settings: DoorSettings, files: OpenFiles) -> "EdgeLimits":
        """The limits in the settings, as far as the limit of open files allows."""
        return cls(
            connections_max=files.connections_max,
            guests_max=min(settings.guests_max, files.connections_max // GUESTS_SHARE),
            guests_len_max=settings.guests_len_max,
            head_len_max=settings.head_len_max,
            silence_s=settings.silence_timeout_ms / 1000,
            request_s=settings.request_timeout_ms / 1000,
            handshake_s=settings.handshake_timeout_ms / 1000,
            drain_s=settings.client_drain_timeout_ms / 1000,
        )

    @property
    def tick_s(self) -> float:
        """How often to look who is late: a tenth of the shortest wait."""
        return min(1.0, min(self.silence_s, self.request_s, self.handshake_s, self.drain_s) / 10)
