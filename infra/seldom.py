"""Log lines that strangers can cause as often as they like: each is said at once, and after that once a minute, with a number.

What is counted by the metrics is counted there each time; only the log is spared.
"""

from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

import structlog

INTERVAL_S: Final = 60.0
KINDS_MAX: Final = 256
"""Different lines that are told apart. Their keys are of our making and few; beyond this they share a line."""


@dataclass
class _Line:
    """One kind of line: when it may be said again, and how often it was not said since."""

    free_at_s: float
    untold: int = 0
    fields: dict[str, Any] = field(default_factory=dict)


class Seldom:
    """Says each kind of line at most once a minute."""

    def __init__(self, logger: str, *, interval_s: float = INTERVAL_S) -> None:
        self._log = structlog.get_logger(logger)
        self._interval_s = interval_s
        self._lines: dict[tuple[str, str], _Line] = {}

    def warn(self, event: str, key: str = "", *, now_s: float | None = None, **fields: Any) -> None:
        """Say ``event`` as a warning, or count it; lines of one ``key`` count together. ``fields`` are said with the line."""
        self._say("warning", event, key, fields, now_s)

    def error(self, event: str, key: str = "", *, now_s: float | None = None, **fields: Any) -> None:
        """The same as an error."""
        self._say("error", event, key, fields, now_s)

    def _say(self, level: str, event: str, key: str, fields: dict[str, Any], now_s: float | None) -> None:
        now_s = monotonic() if now_s is None else now_s
        name = (event, key) if (event, key) in self._lines or len(self._lines) < KINDS_MAX else (event, "")
        line = self._lines.get(name)
        if line is not None and now_s < line.free_at_s:
            line.untold += 1
            return
        if line is not None and line.untold:
            fields = fields | {"times_meanwhile": line.untold}
        self._lines[name] = _Line(now_s + self._interval_s)
        getattr(self._log, level)(event, **fields)
