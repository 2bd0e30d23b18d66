"""The published AsyncAPI document says what the code does, because it is made from it."""

import re
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
from jsonschema import Draft202012Validator
from msgspec.structs import fields

from http_api.sockets import asyncapi, close_codes
from models import wire
from models.wire import ErrorMessage, Heartbeat, MechanicWelcome

ROOT = Path(__file__).parent.parent.parent
PLAIN = {str: "x", int: 1, float: 0.5, bool: True}


def sample(kind: Any, *, full: bool) -> Any:
    """Return a value of ``kind``: with all that it may carry, or with as little as it can."""
    if kind in PLAIN:
        return PLAIN[kind]
    if get_origin(kind) is Annotated:
        return sample(kind.__origin__, full=full)
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if get_origin(kind) is list:
        return [sample(*get_args(kind), full=True)] if full else []
    if get_origin(kind) in (Union, UnionType):
        kinds = [one for one in get_args(kind) if one not in (NoneType, msgspec.UnsetType)]
        return sample(kinds[0], full=True) if full else None
    if issubclass(kind, Enum):
        return next(iter(kind))
    members = [one for one in fields(kind) if full or one.required]
    return kind(**{one.name: sample(one.type, full=full) for one in members})


def samples(union: Any) -> list[Any]:
    """Return two of every message of ``union``, however many there are."""
    return [sample(message, full=full) for message in get_args(union) for full in (True, False)]


SENT = samples(wire.ToMechanic) + samples(wire.ToCustomer)
RECEIVED = [
    (kind, message)
    for kind, union in (("mechanic", wire.MechanicMessage), ("customer", wire.CustomerMessage))
    for message in samples(union)
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


def test_the_samples_hold_all_that_a_message_may_carry_and_as_little_as_it_can():
    assert ErrorMessage("x", "x", "x") in SENT
    assert ErrorMessage("x", "x") in SENT
    assert {(bool(one.offers), one.request is None) for one in SENT if isinstance(one, MechanicWelcome)} == {
        (True, False),
        (False, True),
    }
    assert ("customer", Heartbeat()) in RECEIVED


def named(value: Any) -> str | None:
    return type(value).__name__ if isinstance(value, msgspec.Struct) else None


@pytest.mark.parametrize("message", SENT, ids=named)
def test_what_is_sent_is_valid_by_the_published_schema(message: msgspec.Struct):
    validator = Draft202012Validator(schema_of(type(message).__name__))
    validator.validate(msgspec.json.decode(wire.encode(message)))


@pytest.mark.parametrize(("kind", "message"), RECEIVED, ids=named)
def test_what_the_published_schema_allows_is_understood(kind: str, message: msgspec.Struct):
    decoder = {"mechanic": wire.mechanic_decoder, "customer": wire.customer_decoder}[kind]
    received = {**msgspec.to_builtins(message), "unknown": 1}
    Draft202012Validator(schema_of(type(message).__name__)).validate(received)
    assert decoder.decode(msgspec.json.encode(received)) == message


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


def test_what_a_message_is_answered_by_is_published_with_it():
    for kind, tag, answers in (
        ("mechanic", "accept", ["offer_accepted", "error"]),
        ("mechanic", "heartbeat", ["heartbeat_ack"]),
        ("customer", "watch", ["status", "statuses", "error"]),
    ):
        reply = DOCUMENT["operations"][f"receive_{kind}_{tag}"]["reply"]
        assert reply["channel"] == {"$ref": f"#/channels/{kind}"}
        assert [ref["$ref"].rpartition("/")[2] for ref in reply["messages"]] == answers
    assert "reply" not in DOCUMENT["operations"]["receive_customer_unwatch"]


def test_every_message_has_an_example_that_is_valid_by_its_schema():
    for name, message in DOCUMENT["components"]["messages"].items():
        assert message["examples"], name
        for example in message["examples"]:
            Draft202012Validator(schema_of(name)).validate(example["payload"])


def test_the_lines_of_a_timeline_are_those_that_the_pages_have_a_sentence_for_and_an_unknown_one_is_valid():
    words = (ROOT / "http_api" / "pages" / "browser" / "words.js").read_text()
    sentences = words[words.index("export function timelineText(") :].partition("default:")[0]
    assert set(asyncapi.TIMELINE_EVENTS) == set(re.findall(r'case "(\w+)":', sentences))
    published = DOCUMENT["components"]["schemas"]["TimelineEntryView"]
    assert published["properties"]["event"]["anyOf"][0]["enum"] == list(published["x-events"])
    for event in published["x-events"].values():
        assert set(event["members"]) <= set(published["properties"])
    validator = Draft202012Validator(schema_of("TimelineEntryView"))
    validator.validate({"at": "2026-11-22T09:30:00.000Z", "event": "of_a_later_version"})


def test_the_document_is_json():
    msgspec.json.encode(DOCUMENT)
