"""An example of each message, for ``/asyncapi.json`` and for ``docs/protocol.md``: one source, of the types themselves."""

from typing import Any, Final

import msgspec

from models import wire
from models.wire import (
    Deadline,
    OfferDeadline,
    OfferView,
    Person,
    RequestView,
    ResponseView,
    StatusView,
    TimelineEntryView,
)
from models.words import OfferKind, RequestStatus, WithdrawReason

_AT: Final = "2026-11-22T09:30:00.000Z"
_BACK_AT: Final = "2026-11-22T10:00:00.000Z"
_BREAK_S: Final = 1_800
_MECHANIC: Final = "01KARJ5T3M8YH2W4Q6X9Z0B1CD"
_CUSTOMER: Final = "01KARJ5T3M4KD8N2V6R0P5S7TW"
_OFFER: Final = "01KARJ7QWA1E5G9K3N7R2T6V0X"
_REQUEST: Final = "01KARJ7QW8C4F7J1M5P9S3V6Y0"
_ROOM: Final = f"https://rooms.example/{_REQUEST}?token=eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"

OFFER: Final = OfferView(
    offer_id=_OFFER,
    request_id=_REQUEST,
    kind=OfferKind.PRIORITY,
    customer_name="John Doe",
    plan="expert_video",
    session_type="video",
    duration_min=30,
    expires_at="2026-11-22T09:40:00.000Z",
    expires_in_ms=600_000,
    note="Golf VII, rattles when cold",
    price_cents=2999,
    currency="usd",
)

_ASKED: Final = RequestView(
    id=_REQUEST,
    version=1,
    plan="expert_video",
    session_type="video",
    routing_type="priority_broadcast",
    status=RequestStatus.PRIORITY_OFFERED,
    customer_name="John Doe",
    preferred_mechanic=Person(_MECHANIC, "Mike's Garage"),
    assigned_mechanic=None,
    offer=OfferDeadline(_OFFER, OfferKind.PRIORITY, "2026-11-22T09:40:00.000Z", 600_000, preferred_is_busy=False),
    fallback_reason=None,
    created_at=_AT,
    accepted_at=None,
    completed_at=None,
    refund=None,
    timeline=[
        TimelineEntryView(_AT, "paid", amount_cents=2999),
        TimelineEntryView(_AT, "offered", mechanic_id=_MECHANIC, mechanic_name="Mike's Garage"),
    ],
    note="Golf VII, rattles when cold",
    price_cents=2999,
    currency="usd",
    favorite_prompt=False,
)

_ACCEPTED: Final = msgspec.structs.replace(
    _ASKED,
    version=3,
    status=RequestStatus.ACCEPTED,
    assigned_mechanic=Person(_MECHANIC, "Mike's Garage"),
    offer=None,
    accepted_at="2026-11-22T09:30:12.000Z",
    timeline=[
        *_ASKED.timeline,
        TimelineEntryView("2026-11-22T09:30:12.000Z", "accepted", mechanic_id=_MECHANIC, mechanic_name="Mike's Garage"),
    ],
    start=Deadline("2026-11-22T09:35:12.000Z", 300_000),
    assigned_is_online=True,
    join_url=_ROOM,
)

_REMINDED: Final = msgspec.structs.replace(
    _ACCEPTED,
    version=4,
    timeline=[
        *_ACCEPTED.timeline,
        TimelineEntryView("2026-11-22T09:32:42.000Z", "reminded", mechanic_id=_MECHANIC, mechanic_name="Mike's Garage"),
    ],
    start=Deadline("2026-11-22T09:35:12.000Z", 150_000),
)

_STARTED: Final = msgspec.structs.replace(
    _ACCEPTED,
    version=4,
    status=RequestStatus.IN_PROGRESS,
    timeline=[*_ACCEPTED.timeline, TimelineEntryView("2026-11-22T09:31:00.000Z", "started")],
    start=None,
    ends=Deadline("2026-11-22T10:16:00.000Z", 2_700_000),
)

_LOST: Final = msgspec.structs.replace(
    _REMINDED,
    version=5,
    status=RequestStatus.BROADCASTING,
    assigned_mechanic=None,
    offer=OfferDeadline(
        "01KARJ7QWB6T2X8Z4C0F5H9K1M", OfferKind.BROADCAST, "2026-11-22T09:50:12.000Z", 900_000, preferred_is_busy=False
    ),
    accepted_at=None,
    timeline=[
        *_REMINDED.timeline,
        TimelineEntryView("2026-11-22T09:35:12.000Z", "no_show", mechanic_id=_MECHANIC, mechanic_name="Mike's Garage"),
        TimelineEntryView("2026-11-22T09:35:12.000Z", "broadcast"),
    ],
    start=None,
    assigned_is_online=None,
    join_url=None,
)

_DONE: Final = msgspec.structs.replace(
    _STARTED,
    version=5,
    status=RequestStatus.COMPLETED,
    completed_at="2026-11-22T09:59:30.000Z",
    timeline=[
        *_STARTED.timeline,
        TimelineEntryView("2026-11-22T09:59:30.000Z", "completed", by="customer", lasted_s=1_710),
    ],
    favorite_prompt=True,
    ends=None,
    assigned_is_online=None,
    join_url=None,
)

_STATUS: Final = StatusView(
    mechanic_id=_MECHANIC,
    is_online=True,
    last_seen=_AT,
    availability="available",
    reachable="socket",
    session_types=["diagnostic", "text", "video"],
    as_of=_AT,
    version=7,
    response=ResponseView(accept_percent=80, answers_within_s=42, offers=10),
)
_AWAY: Final = msgspec.structs.replace(
    _STATUS,
    mechanic_id="01KARJ5T3MB7EG0K4N8Q2T5W9Z",
    is_online=False,
    availability="offline",
    reachable="push",
    version=4,
    response=None,
)

_WELCOME: Final = wire.MechanicWelcome(1, _MECHANIC, "01KARJ7ABCDEF", _AT, 20.0, 45.0, 3.0, True, [OFFER], None)

TO_SERVER: Final[dict[str, list[Any]]] = {
    "mechanic": [
        wire.Heartbeat(),
        wire.SetAvailability(on_duty=True),
        wire.SetAvailability(on_duty=False, back_in_s=_BREAK_S),
        wire.SetAvailability(on_duty=True, off_after_session=True),
        wire.OfferAck(_OFFER),
        wire.OfferAck(_OFFER, seen=True),
        wire.Accept(_OFFER),
        wire.Decline(_OFFER, "Booked out today"),
    ],
    "customer": [
        wire.Heartbeat(),
        wire.Watch([_MECHANIC, _AWAY.mechanic_id]),
        wire.Unwatch([_MECHANIC]),
    ],
}
"""What clients send, by channel."""

TO_CLIENT: Final[dict[str, list[Any]]] = {
    "mechanic": [
        _WELCOME,
        msgspec.structs.replace(_WELCOME, on_duty=False, offers=[], back_at=_BACK_AT, back_in_ms=_BREAK_S * 1000),
        msgspec.structs.replace(_WELCOME, offers=[], request=_ACCEPTED, off_after_session=True),
        wire.HeartbeatAck(_AT),
        wire.AvailabilityChanged(on_duty=True, availability="available"),
        wire.AvailabilityChanged(on_duty=False, availability="off_duty", back_at=_BACK_AT, back_in_ms=_BREAK_S * 1000),
        wire.AvailabilityChanged(on_duty=True, availability="busy", off_after_session=True),
        wire.OfferMade(OFFER),
        wire.OfferAccepted(_OFFER, _ACCEPTED),
        wire.OfferWithdrawn(_OFFER, WithdrawReason.TAKEN),
        wire.OfferWithdrawn(_OFFER, WithdrawReason.DECLINED, by_you=True),
        wire.RequestUpdate(_ACCEPTED),
        wire.RequestUpdate(_REMINDED),
        wire.RequestUpdate(_STARTED),
        wire.RequestUpdate(_LOST),
        wire.RequestUpdate(_DONE),
        wire.ErrorMessage("offer_gone", "Another mechanic was faster.", _OFFER),
        wire.ErrorMessage("not_in_session", "You are in no session that you could go off duty after."),
    ],
    "customer": [
        wire.CustomerWelcome(1, _CUSTOMER, _AT, 20.0, 45.0, 3.0, [_ASKED]),
        wire.HeartbeatAck(_AT),
        wire.StatusChanged(**{name: getattr(_STATUS, name) for name in _STATUS.__struct_fields__}),
        wire.StatusesKnown([_STATUS, _AWAY]),
        wire.RequestUpdate(_ACCEPTED),
        wire.FavoritePrompt(_REQUEST, Person(_MECHANIC, "Mike's Garage")),
        wire.ErrorMessage("mechanic_not_found", "There is no such mechanic.", "01KARJ5T3M0000000000000000"),
    ],
}
"""What the server sends, by channel."""


def as_text(message: Any) -> str:
    """Return a message as the page writes it."""
    return msgspec.json.format(msgspec.json.encode(message), indent=2).decode()
