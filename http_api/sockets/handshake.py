"""Who may open a socket: the same proofs as over REST, or a single-use ticket; everybody else gets a plain HTTP answer."""

from dataclasses import dataclass
from typing import Literal

from starlette.responses import Response
from starlette.websockets import WebSocket

from http_api.auth import Identity, Tickets, Tokens, origin_is_ours, token_of
from http_api.rest import problems
from http_api.rest.problems import problem
from http_api.sockets.places import RETRY_AFTER_S
from infra.clock import Clock
from models.errors import Unavailable
from models.settings import DoorSettings


@dataclass(frozen=True)
class Handshakes:
    """Tells who is opening a socket."""

    clock: Clock
    tokens: Tokens
    tickets: Tickets
    settings: DoorSettings

    async def identify(self, websocket: WebSocket, role: Literal["mechanic", "customer"]) -> Identity | Response:
        """Return who is opening the socket, or the answer to refuse it with; never raises for a broken world.

        A bearer header wins over a ticket, and a ticket over the cookie: what is sent on purpose counts.
        """
        now_s = self.clock.now_ms() // 1000
        carried = token_of(websocket.scope["headers"])
        ticket = websocket.query_params.get("ticket")
        identity: Identity | None = None
        if ticket is not None and (carried is None or carried[1] != "bearer"):
            try:
                identity = await self.tickets.redeem(ticket)
            except Unavailable as error:
                return problems.failure(error, where=websocket.scope["path"])
        elif carried is not None:
            token, via = carried
            identity = self.tokens.verify(token, now_s=now_s, via=via)
        if identity is None or identity.expires_at_s <= now_s or self.tokens.is_revoked(identity):
            return unauthenticated()
        if identity.via == "cookie" and not origin_is_ours(websocket.headers.get("origin"), self.settings):
            # A browser sends the cookie along whatever page asks; only the Origin tells whose page it was.
            return problem("foreign_origin", "This socket may be opened from our own pages only.")
        if identity.role != role:
            return problem("wrong_role", f"This socket is for a {role}; you are signed in as a {identity.role}.")
        return identity


def unauthenticated() -> Response:
    """The refusal for a missing, bad, used or expired proof."""
    return problem("unauthenticated", "Sign in, or ask for a fresh ticket.")


def too_many() -> Response:
    """The refusal for an account that has as many sockets as it may have."""
    return problem(
        "too_many_requests",
        "This account has too many sockets open; close one, or try again later.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def unavailable() -> Response:
    """The refusal while this node starts or drains."""
    return problem("unavailable", "This server is about to restart; connect again.", headers={"Retry-After": "1"})
