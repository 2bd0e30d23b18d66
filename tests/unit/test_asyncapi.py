"""The published AsyncAPI document says what the code does, because it is made from it."""

from typing import Any, get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator

from http_api.sockets import asyncapi, close_codes
from models import wire
from models.wire import (
    AvailabilityChanged,
    CustomerWelcome,
    ErrorMessage,
    FavoritePrompt,
    HeartbeatAck,
    MechanicWelcome,
    OfferAccepted,
    OfferMade,
    OfferWithdrawn,
    Person,
    RequestUpdate,
    StatusChanged,
)
from tests.unit.connection_stage import NOW, a_request, a_status, an_offer

OFFER = an_offer().offer
SENT = [
    MechanicWelcome(1, "m1", "c1", NOW, 20.0, True, [OFFER], a_request()),
    MechanicWelcome(1, "m1", "c1", NOW, 0.5, False, [], None),
    HeartbeatAck(NOW),
    AvailabilityChanged(True, "busy"),
    OfferMade(OFFER),
    OfferAccepted("o1", a_request()),
    OfferWithdrawn("o1", "taken"),
    RequestUpdate(a_request()),
    ErrorMessage("offer_gone", "Another mechanic was faster.", "o1"),
    ErrorMessage("malformed_json", "Not JSON."),
    CustomerWelcome(1, "a1", NOW, 20.0, [a_request()]),
    StatusChanged(**msgspec.structs.asdict(a_status("m1"))),
    FavoritePrompt("r1", Person("m1", "Mike")),
]
RECEIVED = [
    ("mechanic", '{"type": "heartbeat"}'),
    ("mechanic", '{"type": "set_availability", "on_duty": true}'),
    ("mechanic", '{"type": "offer_ack", "offer_id": "o1"}'),
    ("mechanic", '{"type": "accept", "offer_id": "o1"}'),
    ("mechanic", '{"type": "decline", "offer_id": "o1", "reason": "lunch", "unknown": 1}'),
    ("mechanic", '{"type": "decline", "offer_id": "o1"}'),
    ("customer", '{"type": "heartbeat"}'),
    ("customer", '{"type": "watch", "mechanic_ids": ["m1"]}'),
    ("customer", '{"type": "unwatch", "mechanic_ids": []}'),
]
DOCUMENT = asyncapi.document("https://pitlane.example")


def schema_of(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}


def resolve(ref: str) -> Any:
    node: Any = DOCUMENT
    for part in ref.removeprefix("#/").split("/"):
        node = node[part]
    return node


def every_ref(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [ref for value in node.values() for ref in every_ref(value)]
    return [ref for value in node for ref in every_ref(value)] if isinstance(node, list) else []


def test_every_message_of_every_union_is_published_on_its_channel_with_its_direction():
    for kind, action, union in (
        ("mechanic", "receive", wire.MechanicMessage),
        ("mechanic", "send", wire.ToMechanic),
        ("customer", "receive", wire.CustomerMessage),
        ("customer", "send", wire.ToCustomer),
    ):
        assert DOCUMENT["channels"][kind]["address"] == f"/ws/{kind}"
        for message in get_args(union):
            tag = message.__struct_config__.tag
            operation = DOCUMENT["operations"][f"{action}_{kind}_{tag}"]
            assert operation["action"] == action
            (ref,) = operation["messages"]
            published = resolve(resolve(ref["$ref"])["$ref"])
            assert published["payload"] == {"$ref": f"#/components/schemas/{message.__name__}"}


def test_every_reference_leads_somewhere():
    for ref in every_ref(DOCUMENT):
        resolve(ref)


def test_a_sample_of_every_message_that_is_sent_is_checked_here():
    assert {type(message) for message in SENT} == set(get_args(wire.ToMechanic)) | set(get_args(wire.ToCustomer))


@pytest.mark.parametrize("message", SENT, ids=lambda message: type(message).__name__)
def test_what_is_sent_is_valid_by_the_published_schema(message):
    validator = Draft202012Validator(schema_of(type(message).__name__))
    validator.validate(msgspec.json.decode(wire.encode(message)))


@pytest.mark.parametrize(("kind", "text"), RECEIVED)
def test_what_the_published_schema_allows_is_understood(kind, text):
    decoder = {"mechanic": wire.mechanic_decoder, "customer": wire.customer_decoder}[kind]
    message = decoder.decode(text)
    Draft202012Validator(schema_of(type(message).__name__)).validate(msgspec.json.decode(text))


def test_what_the_published_schema_forbids_is_refused():
    validator = Draft202012Validator(schema_of("Accept"))
    for bad in ('{"type": "accept"}', '{"type": "accept", "offer_id": "a b"}', '{"type": "decline", "offer_id": "o"}'):
        assert not validator.is_valid(msgspec.json.decode(bad))


def test_the_document_says_where_how_to_sign_in_and_why_sockets_close():
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert DOCUMENT["servers"]["here"]["host"] == "pitlane.example"
    assert DOCUMENT["servers"]["here"]["protocol"] == "wss"
    assert set(DOCUMENT["components"]["securitySchemes"]) == {"bearer", "cookie", "ticket"}
    published = {one["code"] for one in DOCUMENT["x-close-codes"]}
    assert {close_codes.TOKEN_EXPIRED, close_codes.SILENT, close_codes.RESTARTING, close_codes.TOO_BIG} <= published
    assert len(published) == len(close_codes.CLOSE_CODES)


def test_the_document_is_json():
    msgspec.json.encode(DOCUMENT)
