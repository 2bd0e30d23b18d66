"""For operators and load balancers: is the process alive, can it work, and what are its numbers."""

from collections.abc import Awaitable, Callable

import anyio
import structlog
from msgspec import Struct
from starlette.responses import Response

from http_api import metrics
from http_api.rest.operation import ANYONE, Answer, Call, Operation, operation
from http_api.rest.problems import RETRY_AFTER_S, problem
from infra.database import Database
from infra.loops import dying_loops
from infra.redis_link import RedisLink
from models.errors import Unavailable

READY_TIMEOUT_S = 2.0
_log = structlog.get_logger("health")


class Health(Struct):
    status: str


def operations(database: Database, link: RedisLink) -> list[Operation]:
    """Return this module's part of the table."""

    @operation("GET", "/healthz", roles=ANYONE, answers={200: Health})
    async def healthz(_call: Call) -> Health:
        """Tell that the process is alive."""
        return Health("ok")

    @operation("GET", "/readyz", roles=ANYONE, answers={200: Health}, problems=("unavailable",))
    async def readyz(_call: Call) -> Health | Response:
        """Tell whether this node can work: SQL and Redis are reachable, and no loop keeps dying; 503 names what is not so."""
        missing: list[str] = []

        async def check(name: str, ping: Callable[[], Awaitable[object]]) -> None:
            reached = False
            with anyio.move_on_after(READY_TIMEOUT_S):
                try:
                    await ping()
                    reached = True
                except Unavailable as error:
                    _log.warning("not_ready", part=name, error=str(error))
            if not reached:
                missing.append(name)

        async with anyio.create_task_group() as checks:
            checks.start_soon(check, "database", database.ping)
            checks.start_soon(check, "redis", link.ping)
        dying = dying_loops()
        if missing or dying:
            sentences = [f"Not reachable: {', '.join(sorted(missing))}."] if missing else []
            sentences += [f"Ended by a bug again and again: {', '.join(dying)}."] if dying else []
            detail = " ".join(sentences)
            return problem("unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})
        return Health("ok")

    @operation("GET", "/metrics", roles=ANYONE, answers={200: str}, media_type=metrics.CONTENT_TYPE)
    async def read_metrics(_call: Call) -> Answer:
        """Give this process' numbers in Prometheus' text format."""
        return Answer(200, metrics.exposition())

    return [healthz, readyz, read_metrics]
