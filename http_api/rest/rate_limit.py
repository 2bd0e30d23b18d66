"""How often something may be done by somebody: counted in Redis, so that all nodes count together."""

import hashlib
from pathlib import Path
from typing import Final

from infra.redis_link import RedisLink
from models.outcomes import TooMany

SCRIPT: Final = Path(__file__).with_name("rate_limit.lua")


class RateLimit:
    """Lets so many through within a window that begins with the first of them."""

    def __init__(self, link: RedisLink, name: str, *, allowed: int, window_s: int) -> None:
        """``name`` tells what is counted from what other limits count."""
        self._link = link
        self._name = name
        self._allowed = allowed
        self._window_ms = window_s * 1000
        self._script = link.script(SCRIPT)

    async def take(self, subject: str) -> TooMany | None:
        """Count one more of ``subject``, or say that it is too many. Raises ``RedisUnavailable``: uncounted nothing is done."""
        key = self._link.key("rate", f"{self._name}:{digest(subject)}")
        left_ms = int(await self._script(keys=[key], args=[self._allowed, self._window_ms]))
        if not left_ms:
            return None
        wait_s = -(-left_ms // 1000)
        return TooMany(detail=f"That was too often. Please try again in {wait_s} s.", retry_after_s=wait_s)


def digest(subject: str) -> str:
    """Return what stands for a subject in Redis: whoever reads there shall not learn who does what."""
    return hashlib.sha256(subject.encode(errors="surrogatepass")).hexdigest()[:32]
