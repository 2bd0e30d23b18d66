"""Deadlines as keys that expire, noticed by keyspace notifications. ``keyspace_peer.py COUNT WITHIN_S OTHERS PATIENCE_S``

``OTHERS``: how many other keys with a far expiry there are, as in a Redis that is used for something.
"""

import sys
import time

from deadlines import REDIS_URL, deadlines, now_ms, tell
from redis import Redis

PREFIX = "deadline:"


def main(count: int, within_s: float, others: int, patience_s: float) -> None:
    redis = Redis.from_url(REDIS_URL, decode_responses=True)
    redis.flushall()
    redis.config_set("notify-keyspace-events", "Ex")
    pipeline = redis.pipeline(transaction=False)
    for number in range(others):
        pipeline.set(f"session:{number}", "1", ex=3600)
        if number % 1000 == 999:
            pipeline.execute()
    pipeline.execute()
    pubsub = redis.pubsub(ignore_subscribe_messages=True)
    pubsub.psubscribe("__keyevent@*__:expired")
    at_ms = deadlines(count, within_s)
    for number, deadline_ms in enumerate(at_ms):
        pipeline.set(f"{PREFIX}{deadline_ms}:{number}", "1", pxat=deadline_ms)
    pipeline.execute()

    late_ms: list[float] = []
    give_up_s = time.monotonic() + (at_ms[-1] - now_ms()) / 1000 + patience_s
    while len(late_ms) < count and time.monotonic() < give_up_s:
        message = pubsub.get_message(timeout=0.5)
        if message is not None and message["data"].startswith(PREFIX):
            late_ms.append(now_ms() - int(message["data"].split(":")[1]))
    tell(late_ms)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
