"""The simulated Redis is held to the real one: the same random operations, on the model and on our scripts in a real Redis."""

import random
import secrets
from typing import Any

import pytest

from dispatch import deadlines
from infra.redis_link import RedisLink
from tests.simulation.redis import Store

STEPS = 60
OFFERS = [f"offer-{number}" for number in range(6)]
CLAIM_MS = 40


class BothRedis:
    """Does everything twice. The model is told the instant at which the real script ran."""

    def __init__(self, link: RedisLink) -> None:
        self.model = Store()
        self._link = link
        self._index = link.key("deadlines", "index")
        self._prefix = link.key("deadlines", "offer:")
        self._claim = link.script(deadlines.HERE / "claim_due.lua")
        self._schedule = link.script(deadlines.HERE / "schedule_deadline.lua")

    async def now_ms(self) -> int:
        ((seconds, micros),) = await self._link.everywhere(lambda redis: redis.time())
        return seconds * 1000 + micros // 1000

    async def schedule(self, *offers: tuple[str, int]) -> None:
        keys = [self._index, *(self._prefix + offer_id for offer_id, _ in offers)]
        args = [part for pair in offers for part in pair]
        # A little earlier than the script's own; a deadline that passes in between is past for every later claim.
        now_ms = await self.now_ms()
        assert await self._schedule(keys=keys, args=args) == self.model.schedule_deadline(now_ms, keys, args)

    async def claim(self, len_max: int, *closed: str) -> None:
        args: list[Any] = [self._prefix, CLAIM_MS, len_max, *closed]
        keys = [self._index, self._link.key("deadlines", "began")]
        real = await self._claim(keys=keys, args=args)
        assert self.model.claim_due(real[0], keys, args) == real

    async def lose_key(self, offer_id: str) -> None:
        """As a Redis that comes back without its last second."""
        key = self._prefix + offer_id
        await self._link.ask(key, lambda redis: redis.delete(key))
        self.model.strings.pop(self._prefix + offer_id, None)

    async def lose_place(self, offer_id: str) -> None:
        await self._link.ask(self._index, lambda redis: redis.zrem(self._index, offer_id))
        self.model.sorted_sets.get(self._index, {}).pop(offer_id, None)

    async def assert_same(self) -> None:
        real = await self._link.ask(self._index, lambda redis: redis.zrange(self._index, 0, -1, withscores=True))
        ours = self.model.sorted_sets.get(self._index, {})
        assert [(member, int(score)) for member, score in real] == sorted(ours.items(), key=lambda item: item[::-1])


@pytest.mark.parametrize("seed", range(8))
async def test_the_model_of_deadlines_does_what_the_scripts_do(seed: int, redis_url: str) -> None:
    chance = random.Random(seed)
    link = RedisLink(redis_url, prefix=f"test-{secrets.token_hex(6)}")
    both = BothRedis(link)
    try:
        for _ in range(STEPS):
            offer_ids = chance.sample(OFFERS, chance.randint(1, 3))
            match chance.randrange(6):
                case 0 | 1:
                    now_ms = await both.now_ms()
                    lengths_ms = [chance.choice([-500, -50, 30, 60, 5_000]) for _ in offer_ids]
                    await both.schedule(*zip(offer_ids, [now_ms + length for length in lengths_ms], strict=True))
                case 2 | 3:
                    await both.claim(chance.choice([0, 1, 2, 16]))
                case 4:
                    await both.claim(chance.choice([0, 16]), *offer_ids)
                case 5:
                    await chance.choice([both.lose_key, both.lose_place])(offer_ids[0])
            await both.assert_same()
    finally:
        await link.close()
