"""The room in which the demo's sessions take place: a stand-in, where both sides see that the other has arrived.

It is entered as any room is, by a link with a token (docs/sessions.md). Being in the same house, it also looks at the request,
for the other side's name. Who is here is in Redis for some seconds, so that several processes agree. Mounted in the demo only.
"""

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jwt
import structlog
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from http_api.pages.serving import content_security_policy
from infra.database import Database
from infra.redis_link import RedisLink
from models.settings import Settings
from models.tables import Account, SessionRequest
from models.words import RequestStatus, Role

PATH = "/demo/room"
HERE_MS = 5_000
"""How long whoever has said that they are here counts as here; the page says so every second."""
ALGORITHM = "HS256"
"""Pinned: a token's own header is not asked."""
CLAIMS = ["sub", "role", "request_id", "exp"]
HEADERS = {
    # It has no sockets.
    "Content-Security-Policy": content_security_policy(()),
    "Cache-Control": "no-store",
    # The address has a token in it.
    "Referrer-Policy": "no-referrer",
}
FILES = {"room.js": "text/javascript", "room.css": "text/css"}
_HERE = Path(__file__).parent
_STAGES = {
    RequestStatus.PRIORITY_OFFERED: "waiting",
    RequestStatus.BROADCASTING: "waiting",
    RequestStatus.ACCEPTED: "accepted",
    RequestStatus.IN_PROGRESS: "in_progress",
    RequestStatus.COMPLETED: "over",
    RequestStatus.UNFILLED: "over",
    RequestStatus.CANCELLED: "over",
}
_log = structlog.get_logger("demo")


def furnished(settings: Settings) -> Settings:
    """Return the settings with this room in them, unless they name another."""
    if settings.join_url is not None:
        return settings
    url = f"{settings.resolved_base_url}{PATH}/{{request_id}}?token={{token}}"
    # Derived, so that every process that shares the signing key shares this one, too.
    secret = hmac.new(settings.signing_keys()[0].encode(), b"the demo's room", hashlib.sha256).hexdigest()
    return settings.model_copy(update={"join_url": url, "join_secret": secret})


@dataclass(frozen=True)
class Guest:
    """Somebody whose token is good for this room."""

    account_id: str
    role: Role
    request_id: str


class Room:
    """All rooms, one for each request."""

    def __init__(self, database: Database, link: RedisLink, secret: str) -> None:
        """``secret``: what the tokens are signed with."""
        self._database = database
        self._link = link
        self._secret = secret
        self.routes = [
            Route(f"{PATH}/{{request_id}}", self._page, methods=["GET"]),
            Route(f"{PATH}/{{request_id}}/here", self._here, methods=["POST"]),
            Route("/demo/files/{name}", self._file, methods=["GET"]),
        ]

    async def _page(self, request: Request) -> Response:
        # The page itself is the same for everybody; its script asks, and says that the link is no good where that is so.
        status = 200 if self._guest(request, request.query_params.get("token", "")) else 403
        return FileResponse(_HERE / "room.html", status, HEADERS, "text/html")

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            return Response(status_code=404)
        return FileResponse(_HERE / name, headers={"Cache-Control": "no-cache"}, media_type=FILES[name])

    async def _here(self, request: Request) -> Response:
        """Note that the caller is here, and say who else is."""
        guest = self._guest(request, request.headers.get("authorization", "").removeprefix("Bearer "))
        told = await self._told(guest) if guest else None
        if told is None:
            return JSONResponse({"stage": "closed"}, 403, HEADERS)
        return JSONResponse(told, headers=HEADERS)

    def _guest(self, request: Request, token: str) -> Guest | None:
        """Return whom the token lets into the room of the address, ``None``: nobody."""
        try:
            claims = jwt.decode(token, self._secret, algorithms=[ALGORITHM], options={"require": CLAIMS})
            guest = Guest(claims["sub"], Role(claims["role"]), claims["request_id"])
        except (jwt.InvalidTokenError, ValueError) as error:
            _log.debug("room_refused", error=str(error))
            return None
        return guest if guest.request_id == request.path_params["request_id"] else None

    async def _told(self, guest: Guest) -> dict[str, object] | None:
        """Return what the guest's page shows; ``None``: there is no such request."""
        async with self._database.read() as session:
            row = await session.get(SessionRequest, guest.request_id)
            if row is None:
                return None
            mechanic_id = row.assigned_mechanic_id
            me, other_id = row.customer_id, mechanic_id
            if guest.role is Role.MECHANIC:
                me, other_id = mechanic_id or "", row.customer_id
            if guest.account_id != me:
                # A token outlives what it was made for: the request may have been taken from its mechanic.
                return {"stage": "gone"}
            own = await session.get(Account, me)
            other = await session.get(Account, other_id) if other_id else None
        await self._enter(guest)
        return {
            "stage": _STAGES[RequestStatus(row.status)],
            "role": guest.role,
            "you": own.name if own else "",
            "other": other.name if other else None,
            "is_other_here": other is not None and await self._is_here(guest.request_id, other.id),
        }

    async def _enter(self, guest: Guest) -> None:
        key = self._key(guest.request_id, guest.account_id)
        await self._link.ask(key, lambda redis: redis.set(key, "here", px=HERE_MS))

    async def _is_here(self, request_id: str, account_id: str) -> bool:
        key = self._key(request_id, account_id)
        return bool(await self._link.ask(key, lambda redis: redis.exists(key)))

    def _key(self, request_id: str, account_id: str) -> str:
        return self._link.key("demo", f"room:{request_id}:{account_id}")


def address(base_url: str, join_url: str | None) -> str | None:
    """Return where one says that one is here, for whoever comes by this link; ``None``: that is another room than ours."""
    _, found, rest = (join_url or "").partition(PATH + "/")
    request_id, _, _ = rest.partition("?")
    return f"{base_url}{PATH}/{quote(request_id, safe='')}/here" if found else None
