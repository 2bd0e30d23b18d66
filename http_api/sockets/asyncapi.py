"""The sockets as an AsyncAPI 3.0 document, generated from the very types that decode and encode the messages."""

from collections.abc import Iterable
from inspect import cleandoc
from typing import Any, Final, get_args
from urllib.parse import urlsplit

import msgspec

from http_api.auth import COOKIE
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
    "too_many_watched": "A socket watches at most 100 mechanics; those watched before stay.",
    "mechanic_not_found": "There is no such mechanic; `ref` is the id.",
    "unavailable": "The database or Redis did not answer; nothing is known to have been done. Try again.",
    "internal_error": "A fault of ours.",
}
"""The stable words in `error`; a few more that REST has, too, may come with an offer."""


def document(base_url: str = "http://127.0.0.1:8000") -> dict[str, Any]:
    """Return the document; ``base_url`` is where browsers reach the server."""
    address = urlsplit(base_url)
    messages = {kind: _by_type(received) | _by_type(sent) for kind, (_, _, received, sent) in CHANNELS.items()}
    every_type = {message: None for by_type in messages.values() for message in by_type.values()}
    _, schemas = msgspec.json.schema_components(list(every_type), ref_template=_SCHEMA)
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
        "name": COOKIE,
        "description": "For our own pages: the handshake's Origin must be ours.",
    },
    "ticket": {
        "type": "httpApiKey",
        "in": "query",
        "name": "ticket",
        "description": "For whoever can send neither: from POST /api/ws-ticket, good once.",
    },
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
                yield (
                    f"{action}_{kind}_{tag}",
                    {
                        "action": action,
                        "channel": {"$ref": f"#/channels/{kind}"},
                        "summary": cleandoc(message.__doc__ or tag),
                        "messages": [{"$ref": f"#/channels/{kind}/messages/{tag}"}],
                    },
                )


def _message(message: type[msgspec.Struct]) -> dict[str, Any]:
    return {"name": _tag(message), "payload": {"$ref": _SCHEMA.format(name=message.__name__)}}
