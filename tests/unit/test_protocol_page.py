"""The page for those who write an app shows each message as the server really reads and sends it."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clients.python import pitlane_client as client
from http_api.sockets import examples
from http_api.sockets.asyncapi import ERROR_CODES
from http_api.sockets.close_codes import CLOSE_CODES
from models import wire
from models.words import WithdrawReason

PAGE = (Path(__file__).parent.parent.parent / "docs" / "protocol.md").read_text()
BLOCKS = re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)
DECODERS: dict[tuple[str, str], msgspec.json.Decoder[Any]] = {
    ("mechanic", "to server"): wire.mechanic_decoder,
    ("customer", "to server"): wire.customer_decoder,
    ("mechanic", "to client"): msgspec.json.Decoder(wire.ToMechanic),
    ("customer", "to client"): msgspec.json.Decoder(wire.ToCustomer),
}
SHOWN = [
    (channel, way, one)
    for way, by_channel in (("to server", examples.TO_SERVER), ("to client", examples.TO_CLIENT))
    for channel, messages in by_channel.items()
    for one in messages
]


@pytest.mark.parametrize(("channel", "way", "message"), SHOWN, ids=str)
def test_an_example_is_understood_as_what_it_is(channel: str, way: str, message: msgspec.Struct) -> None:
    assert DECODERS[channel, way].decode(examples.as_text(message)) == message


@pytest.mark.parametrize("block", BLOCKS)
def test_what_the_page_shows_is_an_example_as_it_is_written_now(block: str) -> None:
    assert block in {examples.as_text(one) for _, _, one in SHOWN}


def test_every_message_in_both_directions_is_on_the_page() -> None:
    on_the_page = {msgspec.json.decode(block)["type"] for block in BLOCKS}
    everything = (wire.MechanicMessage, wire.ToMechanic, wire.CustomerMessage, wire.ToCustomer)
    assert on_the_page == {one.__struct_config__.tag for union in everything for one in union.__args__}
    assert {type(one) for _, _, one in SHOWN} == {one for union in everything for one in union.__args__}


def test_the_page_names_every_close_code_and_reason_and_knows_every_error_that_it_names() -> None:
    for one in CLOSE_CODES:
        assert re.search(rf"\| [\d, ]*\b{one.code}\b[\d, ]* \|", PAGE), one.code
    for reason in WithdrawReason:
        assert f"| `{reason}` |" in PAGE
    for code in ("offer_gone", "already_in_session", "unavailable", "too_many_watched", "mechanic_not_found"):
        assert code in ERROR_CODES
        assert f"`{code}`" in PAGE


def test_the_waits_of_the_page_are_those_of_the_clients() -> None:
    for name, then in (
        ("quickly", client.Then.RECONNECT),
        ("spread", client.Then.RECONNECT_SPREAD),
        ("slowly, `fix`, 429", client.Then.RECONNECT_SLOWLY),
    ):
        pace = client.PACES[then]
        share = {0.0: "nothing", 0.5: "half"}[pace.share_min]
        assert f"| {name} | {pace.base_s:g} s | {pace.cap_s:g} s | {share} |" in PAGE
    assert f"within {client.WELCOME_TIMEOUT_S:g} seconds" in PAGE
    assert f"within {client.ANSWER_TIMEOUT_S:g} seconds" in PAGE
    assert f"lived for {client.STABLE_AFTER_S:g} seconds" in PAGE
    assert f"every {client.POLL_INTERVAL_S:g} seconds" in PAGE
