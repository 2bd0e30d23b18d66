"""Whether a customer has a page open, on whichever node: asked over the bus when it matters, answered in Redis.

Asked each time rather than kept, as a mechanic's presence is: customers are many, and few of them have a browser that can be woken.
A node that hears the question pings that customer's sockets, and answers for the first that is heard. So a socket that is open only
because nobody has noticed yet that its phone is asleep does not count.
"""

from typing import Final

from dispatch import deliveries
from infra.bus import Bus
from infra.redis_link import RedisLink

KEPT_S: Final = 24 * 3600
"""How long an answer is good for: as long as a message that depends on it may wait."""


class OpenPages:
    """Asks, and answers."""

    def __init__(self, link: RedisLink, bus: Bus) -> None:
        self._link = link
        self._bus = bus
        self._channel = deliveries.channel(link)

    async def ask(self, account_id: str, question: str) -> None:
        """Ask all nodes; the answer comes soon, or there is none. Raises ``RedisUnavailable``."""
        await self._bus.publish(self._channel, deliveries.encode(deliveries.PageWanted(account_id, question)))

    async def answer(self, question: str) -> None:
        """Say that a page is open. Raises ``RedisUnavailable``."""
        key = self._key(question)
        await self._link.ask(key, lambda redis: redis.set(key, 1, ex=KEPT_S))

    async def is_any_open(self, question: str) -> bool:
        """Whether somebody has answered. Raises ``RedisUnavailable``."""
        key = self._key(question)
        return bool(await self._link.ask(key, lambda redis: redis.exists(key)))

    def _key(self, question: str) -> str:
        return self._link.key(question, "page")
