"""The stand-in as one part of a node: what is mounted, and what runs beside it."""

import anyio
import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount

from embedded.stripe_standin import objects, store
from embedded.stripe_standin.api import SERVER_ERROR, Api
from embedded.stripe_standin.money_pages import MoneyPages
from embedded.stripe_standin.pages import Pages
from embedded.stripe_standin.webhooks import POLL_S, Deliverer

EXPIRED_TOGETHER_MAX = 100
# Any number does, as long as nobody else in this database locks it: "standin" in ASCII.
SCHEMA_LOCK = 0x7374616E64696E

log = structlog.get_logger()


class StripeStandin:
    """One node's stand-in over a shared database: mount `app`, call `prepare` before serving, keep `run` running.

    ``engine``: SQLite (aiosqlite, beginning IMMEDIATE transactions) or PostgreSQL (asyncpg). ``webhook_url`` is where
    signed events go; ``public_url`` is where customers' browsers reach the mount, without a trailing slash.
    """

    app: Starlette

    def __init__(
        self, engine: AsyncEngine, *, api_key: str, webhook_secret: str, webhook_url: str, public_url: str
    ) -> None:
        self._engine = engine
        self._public_url = public_url.rstrip("/")
        self._deliverer = Deliverer(engine, secret=webhook_secret, url=webhook_url)
        api = Api(engine, api_key=api_key, public_url=self._public_url, on_events=self._deliverer.wake)
        pages = Pages(engine, self._deliverer, self._public_url)
        money_pages = MoneyPages(engine, pages, self._public_url)
        self.app = Starlette(
            routes=[
                Mount("/v1", routes=api.routes()),
                Mount("/pay", routes=[*pages.routes(), *money_pages.routes()]),
            ],
            exception_handlers={Exception: _server_error},
        )

    async def prepare(self) -> None:
        """Create the tables and columns that are missing. Idempotent, and safe from several processes side by side."""
        async with self._engine.begin() as conn:
            if conn.dialect.name == "postgresql":
                await conn.execute(sa.select(sa.func.pg_advisory_xact_lock(SCHEMA_LOCK)))
            await store.prepare(conn)

    async def forget(self, email: str) -> None:
        """Forget an address, wherever it stands. Stripe itself does so only when it is asked to (docs.stripe.com/privacy)."""
        async with store.transaction(self._engine) as conn:
            await store.forget(conn, email)

    async def run(self) -> None:
        """Deliver webhooks and expire Sessions until cancelled. A database that is away is waited for."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._deliverer.run)
            tasks.start_soon(self._expire_overdue)

    async def _expire_overdue(self) -> None:
        while True:
            try:
                async with store.transaction(self._engine) as conn:
                    overdue = await store.overdue_sessions(conn, store.now_ms() // 1000, EXPIRED_TOGETHER_MAX)
                    for session_id in overdue:
                        expired = await store.expire_session(conn, session_id)
                        if expired is not None:
                            snapshot = objects.checkout_session(expired, self._public_url)
                            await store.insert_events(conn, session_id, [("checkout.session.expired", snapshot)])
                if overdue:
                    self._deliverer.wake()
            except store.TROUBLE as error:
                log.warning("stripe_standin.database_unavailable", error=repr(error))
            await anyio.sleep(POLL_S)


async def _server_error(request: Request, error: Exception) -> Response:
    return JSONResponse(SERVER_ERROR, 500, {"Request-Id": objects.new_id("req_")})
