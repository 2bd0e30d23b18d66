"""The sockets as an AsyncAPI 3.0 document, generated from the very types that decode and encode the messages."""

from collections.abc import Iterable
from inspect import cleandoc
from typing import Any, Final, get_args
from urllib.parse import urlsplit

import msgspec

from http_api import cookies
from http_api.sockets import examples
from http_api.sockets.close_codes import CLOSE_CODES
from models import wire

VERSION: Final = "3.0.0"
_SCHEMA: Final = "#/components/schemas/{name}"
_TITLE: Final = "Pitlane sockets"
_DESCRIPTION: Final = """
One JSON object per text frame, each with `type`. Unknown members and unknown types are to be ignored. After every
(re)connect the first message is `welcome`, a snapshot; changes follow. Requests and statuses carry a `version` that only
grows: an older one never overwrites a newer. The server pings whoever is silent; the pong counts as a heartbeat.
"""

CHANNELS: Final = {
    "mechanic": ("/ws/mechanic", "For a mechanic's app.", wire.MechanicMessage, wire.ToMechanic),
    "customer": ("/ws/customer", "For a customer's page.", wire.CustomerMessage, wire.ToCustomer),
}
"""Per channel its address, what it is, and the unions of what the server receives and sends."""

ERROR_CODES: Final = {
    "malformed_json": "The frame was not JSON.",
    "unknown_type": "There is no message of that `type` on this socket.",
    "invalid_message": "A member is missing or of the wrong kind; `message` names it.",
    "offer_gone": "The offer cannot be taken any more; `message` says why, `ref` is the offer's id.",
    "already_in_session": "The mechanic has a session already; `ref` is the offer's id.",
    "invalid_availability": "The members of `set_availability` do not go together; `message` says which.",
    "not_in_session": "There is no session that the mechanic could go off duty after.",
    "too_many_watched": "A socket watches at most 100 mechanics; those watched before stay.",
    "mechanic_not_found": "There is no such mechanic; `ref` is the id.",
    "unavailable": "The database or Redis did not answer; nothing is known to have been done. Try again.",
    "internal_error": "A fault of ours.",
}
"""The stable words in `error`; a few more that REST has, too, may come with an offer."""


REPLIES: Final[dict[str, tuple[str, ...]]] = {
    "heartbeat": ("heartbeat_ack",),
    "set_availability": ("availability", "error"),
    "accept": ("offer_accepted", "error"),
    "decline": ("offer_withdrawn", "error"),
    "watch": ("status", "statuses", "error"),
}
"""What a client's message is answered by. The others are answered only if something is wrong with them, by `error`."""

_WHO: Final = ("mechanic_id", "mechanic_name")
TIMELINE_EVENTS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "requested": ("A request that costs nothing was made.", ()),
    "paid": ("The payment arrived.", ("amount_cents",)),
    "offered": ("Offered to the favourite alone.", _WHO),
    "delivered": ("The favourite's app has the offer.", _WHO),
    "seen": ("A person could see it there.", _WHO),
    "declined": ("The favourite declined.", _WHO),
    "expired": ("The favourite's window ended.", ()),
    "skipped": ("The customer did not want to wait for the favourite.", ()),
    "broadcast": ("Offered to everyone on duty.", ()),
    "accepted": ("A mechanic took it.", _WHO),
    "reminded": ("Half of the start window is over; the mechanic was reminded.", _WHO),
    "no_show": ("The mechanic did not start in time; everybody else is asked.", _WHO),
    "find_another": ("The customer did not want to wait for the mechanic; everybody else is asked.", _WHO),
    "released": ("The mechanic gave it back.", _WHO),
    "started": ("The session began.", ()),
    "completed": ("The session ended: by whom, and after how long.", ("by", "lasted_s")),
    "reported": ("The customer said that something was wrong with the session. Not told to the mechanic.", ()),
    "cancelled": (
        "The customer cancelled; with a `cause`: the operator did (`operator`), the same choice was paid for on an older page as "
        "well (`paid_twice`), or its payment went back (`refunded_at_stripe`) or was disputed (`disputed`) before the session.",
        ("cause",),
    ),
    "unfilled": ("Nobody took it in time; `cause` `operator`: the operator ended it.", ("cause",)),
    "refund_requested": ("Money is owed back.", ("amount_cents", "cause")),
    "refunded": ("Money went back.", ("amount_cents",)),
    "refund_failed": (
        "A refund failed at the bank, or Stripe goes on refusing it; operators see it.",
        ("amount_cents",),
    ),
    "refunded_at_stripe": ("Others gave money back, in Stripe's dashboard.", ("amount_cents",)),
    "disputed": ("The customer's bank asks for the payment.", ()),
    "dispute_won": ("The bank has left us the payment.", ()),
    "dispute_lost": ("The bank has given the payment back.", ()),
}
"""The lines that a request's story may have: what each means, and what it says besides. There may be more one day."""


def document(base_url: str = "http://127.0.0.1:8000") -> dict[str, Any]:
    """Return the document; ``base_url`` is where browsers reach the server."""
    address = urlsplit(base_url)
    messages = {kind: _by_type(received) | _by_type(sent) for kind, (_, _, received, sent) in CHANNELS.items()}
    every_type = {message: None for by_type in messages.values() for message in by_type.values()}
    _, schemas = msgspec.json.schema_components(list(every_type), ref_template=_SCHEMA)
    _describe_timeline(schemas["TimelineEntryView"])
    return {
        "asyncapi": VERSION,
        "info": {"title": _TITLE, "version": str(wire.PROTOCOL), "description": cleandoc(_DESCRIPTION)},
        "defaultContentType": "application/json",
        "servers": {
            "here": {
                "host": address.netloc,
                "protocol": "wss" if address.scheme == "https" else "ws",
                "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in _SECURITY],
            }
        },
        "channels": {kind: _channel(kind, messages[kind]) for kind in CHANNELS},
        "operations": dict(_operations()),
        "components": {
            "messages": {message.__name__: _message(message) for message in every_type},
            "schemas": schemas,
            "securitySchemes": _SECURITY,
        },
        "x-close-codes": [{"code": one.code, "meaning": one.meaning, "then": one.then.value} for one in CLOSE_CODES],
        "x-error-codes": ERROR_CODES,
    }


_SECURITY: Final[dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "For apps."},
    "cookie": {
        "type": "httpApiKey",
        "in": "cookie",
        "name": cookies.SESSION,
        "description": "For our own pages: the handshake's Origin must be ours.",
    },
    "ticket": {
        "type": "httpApiKey",
        "in": "query",
        "name": "ticket",
        "description": "For whoever can send neither: from POST /api/ws-ticket, good once.",
    },
}


def _describe_timeline(schema: dict[str, Any]) -> None:
    """List the known events. An unknown one is valid all the same: clients must not fail on it."""
    schema["properties"]["event"] = {
        "anyOf": [{"enum": list(TIMELINE_EVENTS)}, {"type": "string"}],
        "description": "Others may follow; show them as what they are, or not at all.",
    }
    schema["x-events"] = {
        event: {"meaning": meaning, "members": list(members)} for event, (meaning, members) in TIMELINE_EVENTS.items()
    }


def _tag(message: type[msgspec.Struct]) -> str:
    tag = message.__struct_config__.tag
    assert isinstance(tag, str), "every message of models.wire has its type"
    return tag


def _by_type(union: Any) -> dict[str, type[msgspec.Struct]]:
    return {_tag(message): message for message in get_args(union)}


def _channel(kind: str, messages: dict[str, type[msgspec.Struct]]) -> dict[str, Any]:
    address, description, _, _ = CHANNELS[kind]
    return {
        "address": address,
        "description": description,
        "messages": {tag: {"$ref": f"#/components/messages/{one.__name__}"} for tag, one in messages.items()},
        "bindings": {
            "ws": {
                "method": "GET",
                "query": {"type": "object", "properties": {"ticket": {"type": "string"}}},
                "bindingVersion": "0.1.0",
            }
        },
    }


def _operations() -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield one operation per message, as seen from the server."""
    for kind, (_, _, received, sent) in CHANNELS.items():
        for action, union in (("receive", received), ("send", sent)):
            for tag, message in _by_type(union).items():
                operation = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{kind}"},
                    "summary": cleandoc(message.__doc__ or tag),
                    "messages": [{"$ref": f"#/channels/{kind}/messages/{tag}"}],
                }
                if action == "receive" and tag in REPLIES:
                    operation["reply"] = {
                        "channel": {"$ref": f"#/channels/{kind}"},
                        "messages": [{"$ref": f"#/channels/{kind}/messages/{answer}"} for answer in REPLIES[tag]],
                    }
                yield f"{action}_{kind}_{tag}", operation


def _message(message: type[msgspec.Struct]) -> dict[str, Any]:
    shown = [
        one
        for by_channel in (examples.TO_SERVER, examples.TO_CLIENT)
        for of_channel in by_channel.values()
        for one in of_channel
        if type(one) is message
    ]
    # A type that travels on both sockets may have the same example on each.
    payloads = {msgspec.json.encode(one): msgspec.to_builtins(one) for one in shown}
    return {
        "name": _tag(message),
        "payload": {"$ref": _SCHEMA.format(name=message.__name__)},
        "examples": [{"payload": payload} for payload in payloads.values()],
    }
