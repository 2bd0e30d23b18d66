"""Deadlines as delayed jobs of arq, in one worker. ``arq_peer.py COUNT WITHIN_S PATIENCE_S``

Its settings are arq's own, but for the number of jobs side by side: with the ten of the default it could not keep up.
"""

import asyncio
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func
from deadlines import REDIS_URL, deadlines, now_ms, tell

JOBS_SIDE_BY_SIDE = 1_000


async def main(count: int, within_s: float, patience_s: float) -> None:
    late_ms: list[float] = []
    all_done = asyncio.Event()

    async def end_window(_context: dict[str, Any], deadline_ms: int) -> None:
        late_ms.append(now_ms() - deadline_ms)
        if len(late_ms) == count:
            all_done.set()

    pool = await create_pool(RedisSettings(unix_socket_path=REDIS_URL.removeprefix("unix://")))
    at_ms = deadlines(count, within_s)
    for deadline_ms in at_ms:
        await pool.enqueue_job("end_window", deadline_ms, _defer_until=datetime.fromtimestamp(deadline_ms / 1000, UTC))
    worker = Worker(
        functions=[func(end_window, name="end_window")],
        redis_pool=pool,
        max_jobs=JOBS_SIDE_BY_SIDE,
        handle_signals=False,
    )
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(worker.async_run())
        with suppress(TimeoutError):
            await asyncio.wait_for(all_done.wait(), (at_ms[-1] - now_ms()) / 1000 + patience_s)
        working.cancel()
    tell(late_ms)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
