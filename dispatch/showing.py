"""A request as each of those sees it who may: whether its mechanic is there, and where the session takes place.

Everything else that is shown of a request is in ``views``; it is the same for both, but that the mechanic does not see reports.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

import jwt
import structlog
from msgspec.structs import replace

from dispatch.request import SERVING
from dispatch.stored import StoredRequest
from dispatch.views import request_view, without_reports
from infra.clock import Clock
from models.errors import Unavailable
from models.wire import RequestView
from models.words import RequestStatus, Role
from presence.service import Presence


class Parties(Protocol):
    """Whose a request is, and until when they have a session; see ``StoredRequest``."""

    @property
    def customer_id(self) -> str: ...
    @property
    def assigned_mechanic_id(self) -> str | None: ...
    @property
    def session_until_ms(self) -> int | None: ...


@dataclass(frozen=True)
class Rooms:
    """Where sessions take place: a page of somebody's, entered with a token that says who comes (RFC 7519, HS256)."""

    url: str
    """With ``{token}``, and perhaps ``{request_id}``."""
    secret: str
    grace_ms: int
    """How long a session may outlast the minutes of its plan."""

    def link(self, view: RequestView, *, account_id: str, role: Role, until_ms: int) -> str:
        """Return the link for one of the request's two parties.

        ``until_ms``: when the session ends; of one that has not begun, its minutes after it must have. A token is good for no
        longer than the room is needed.
        """
        grace_ms = self.grace_ms if view.status is RequestStatus.ACCEPTED else 0
        assigned = view.assigned_mechanic
        assert assigned is not None, "only what somebody has accepted has a room"
        claims = {
            "sub": account_id,
            "name": view.customer_name if role is Role.CUSTOMER else assigned.name,
            "role": role.value,
            "request_id": view.id,
            "plan": view.plan,
            "session_type": view.session_type,
            "exp": (until_ms + grace_ms) // 1000,
        }
        token = jwt.encode(claims, self.secret, algorithm="HS256")
        return self.url.replace("{request_id}", quote(view.id, safe="")).replace("{token}", token)


class Showing:
    """Shows requests to their customers, their mechanics, and operators."""

    def __init__(self, *, clock: Clock, presence: Presence, rooms: Rooms | None) -> None:
        """``rooms`` ``None``: where sessions take place is not our business."""
        self._clock = clock
        self._presence = presence
        self._rooms = rooms
        self._log = structlog.get_logger("showing")

    async def to(self, account_id: str | None, stored: StoredRequest) -> RequestView:
        """Return a request as an account sees it, ``None``: as operators do."""
        [view] = await self.all([(account_id, stored)])
        return view

    async def all(self, wanted: Sequence[tuple[str | None, StoredRequest]]) -> list[RequestView]:
        """Return requests, each as an account sees it, in their order."""
        now_ms = self._clock.now_ms()
        views = [request_view(stored, now_ms=now_ms, for_operators=account_id is None) for account_id, stored in wanted]
        online = await self.online(views)
        return [
            self.dressed(view, account_id, stored, online=online)
            for view, (account_id, stored) in zip(views, wanted, strict=True)
        ]

    async def online(self, views: Iterable[RequestView]) -> Mapping[str, bool]:
        """Return of the mechanics who have the requests whether they are there; nobody is named while presence is away."""
        ids = {view.assigned_mechanic.id for view in views if view.status in SERVING and view.assigned_mechanic}
        if not ids:
            return {}
        try:
            return {one.mechanic_id: one.is_online for one in (await self._presence.status_of(ids)).values()}
        except Unavailable as error:
            self._log.warning("presence_not_shown", error=str(error))
            return {}

    def dressed(
        self, view: RequestView, account_id: str | None, parties: Parties, *, online: Mapping[str, bool]
    ) -> RequestView:
        """Return the view with what only this account is shown, ``None``: an operator."""
        is_customer = account_id == parties.customer_id
        if account_id is not None and not is_customer:
            view = without_reports(view)
        if view.status not in SERVING or view.assigned_mechanic is None:
            return view
        join_url = None
        # Who had it may see that it is somebody else's, and not where that takes place.
        is_party = is_customer or account_id == parties.assigned_mechanic_id
        if self._rooms is not None and account_id is not None and is_party and parties.session_until_ms is not None:
            role = Role.CUSTOMER if is_customer else Role.MECHANIC
            join_url = self._rooms.link(view, account_id=account_id, role=role, until_ms=parties.session_until_ms)
        return replace(view, assigned_is_online=online.get(view.assigned_mechanic.id), join_url=join_url)
